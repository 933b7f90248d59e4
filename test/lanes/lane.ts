import { spawn } from 'node:child_process';
import { createWriteStream } from 'node:fs';
import { join } from 'node:path';
import { finished } from 'node:stream/promises';

export interface LaneRun {
  readonly exitCode: number;
  readonly output: string;
  readonly tookMs: number;
}

export interface Lane {
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
  /** Added to the environment. */
  readonly env?: Readonly<Record<string, string>>;
  /** `live`: shown as it comes. `after`: shown when it ends, so that lanes that run side by side stay readable. */
  readonly show: 'live' | 'after';
}

const outputCharsMax = 4_000_000;

/** Runs a lane, and keeps everything that it prints in `transcriptFolder` for the canary check. */
export async function runLane(lane: Lane, transcriptFolder: string): Promise<LaneRun> {
  const startedAt = performance.now();
  const transcript = createWriteStream(join(transcriptFolder, `lane-${lane.name}.log`));
  if (lane.show === 'live') process.stdout.write(`\n== ${lane.name}\n`);
  const child = spawn(lane.command, lane.args, {
    env: { ...process.env, ...lane.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  const keep = (chunk: Buffer): void => {
    transcript.write(chunk);
    output = (output + chunk.toString()).slice(-outputCharsMax);
    if (lane.show === 'live') process.stdout.write(chunk);
  };
  child.stdout.on('data', keep);
  child.stderr.on('data', keep);
  const exitCode = await new Promise<number>((resolve) => {
    child.on('error', (error) => {
      keep(Buffer.from(`${lane.command} did not start: ${error.message}\n`));
      resolve(127);
    });
    child.on('close', (code, signal) => resolve(signal === null ? (code ?? 1) : 1));
  });
  transcript.end();
  await finished(transcript);
  const tookMs = performance.now() - startedAt;
  showEnd(lane, exitCode, output, tookMs);
  return { exitCode, output, tookMs };
}

function showEnd(lane: Lane, exitCode: number, output: string, tookMs: number): void {
  if (lane.show === 'after' && exitCode !== 0) process.stdout.write(`\n== ${lane.name}\n${output}`);
  const verdict = exitCode === 0 ? 'ok' : `FAILED (exit code ${exitCode})`;
  process.stdout.write(`${lane.name}: ${verdict}, ${(tookMs / 1000).toFixed(1)} s\n`);
}
