/** The agent as its operator runs it: bin/failkit in a process of its own. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { recordOutput } from '../canary.ts';

const ownLauncher = join(import.meta.dirname, '../../bin/failkit');

export interface Outcome {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
  /** What `--json` printed. */
  json<Document>(): Document;
}

export interface ProcessOptions {
  readonly folder: string;
  /** Besides PATH, HOME and TMPDIR. */
  readonly environment?: Readonly<Record<string, string>>;
  /** Of an agent that is installed elsewhere. */
  readonly launcher?: string;
}

export interface FailkitProcess {
  /** Of the agent itself: the launcher became it. */
  readonly pid: number;
  readonly ended: Promise<Outcome>;
  /** Of standard output, as soon as it is there. Rejects when the process ends without one. */
  readonly firstLine: Promise<string>;
  kill(signal: 'SIGINT' | 'SIGTERM' | 'SIGKILL' | 'SIGHUP'): void;
}

export function startFailkit(
  args: readonly string[],
  { folder, environment = {}, launcher = ownLauncher }: ProcessOptions,
): FailkitProcess {
  const env = {
    PATH: process.env.PATH,
    HOME: folder,
    TMPDIR: process.env.TMPDIR,
    AWS_EC2_METADATA_DISABLED: 'true',
    ...environment,
  };
  const child = spawn(launcher, args, { cwd: folder, env, stdio: ['ignore', 'pipe', 'pipe'] });
  const firstLine = lineOf(child.stdout);
  const ended = Promise.all([text(child.stdout), text(child.stderr), once(child, 'close')]).then(
    ([stdout, stderr, [code]]): Outcome => {
      recordOutput(stdout + stderr);
      return { exitCode: typeof code === 'number' ? code : -1, stdout, stderr, json: () => JSON.parse(stdout) };
    },
  );
  return { pid: child.pid ?? -1, ended, firstLine, kill: (signal) => child.kill(signal) };
}

function lineOf(stream: Readable): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  let text = '';
  stream.on('data', (chunk: Buffer) => {
    text += chunk.toString();
    const [line = '', more] = text.split('\n', 2);
    if (more !== undefined) resolve(line);
  });
  stream.on('end', () => reject(new Error(`no line on standard output, but ${JSON.stringify(text)}`)));
  // Most callers wait for the end only.
  promise.catch(() => undefined);
  return promise;
}

export function runFailkit(args: readonly string[], options: ProcessOptions): Promise<Outcome> {
  return startFailkit(args, options).ended;
}
