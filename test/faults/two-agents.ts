import { cpSync } from 'node:fs';
import { expect } from 'vitest';
import { type CliOutcome, type CliProcess, CliWorld } from './cli-world.ts';
import type { Injection } from './injection.ts';

/** Two agents of one machine: `state` and another one with a state folder of its own. */

const fencedExitCode = 6;

/** `other` has a key of its own, which the root key certifies. */
export async function twoHosts(): Promise<CliWorld> {
  const world = await CliWorld.create();
  world.writeConfig('other', 'bucket', world.rootFingerprint);
  const request = world.path('request');
  await world.succeed(['root', 'request', request], 'other');
  await world.succeed(['root', 'certify', '--root-key', world.path('kit/root.key'), request]);
  return world;
}

/** `other` is a copy of the whole state folder, key and all. */
export function cloneState(world: CliWorld): void {
  world.writeConfig('other', 'bucket');
  cpSync(world.path('state'), world.path('other'), { recursive: true });
}

export function requireFenced({ exitCode, stdout, stderr }: CliOutcome): void {
  expect(JSON.parse(stdout).error).toMatchObject({ code: 'FENCED' });
  expect(exitCode).toBe(fencedExitCode);
  expect(stderr).toMatch(/fenced|taken this machine over|took this machine over|another agent/);
}

/** The point that the outcome speaks of; null when the run was fenced. Anything else is thrown. */
export function pointOf(outcome: CliOutcome): number | null {
  if (outcome.exitCode !== 0) {
    requireFenced(outcome);
    return null;
  }
  return JSON.parse(outcome.stdout).machines[0].point;
}

/** A process that has stopped itself at the injected call. */
export async function startStopped(
  world: CliWorld,
  args: readonly string[],
  at: Pick<Injection, 'at' | 'match'>,
  state = 'state',
): Promise<CliProcess> {
  const started = world.start(args, { ...at, moment: 'before', signal: 'SIGSTOP' }, state);
  const stopped = new Promise<void>((resolve) => {
    started.child.stderr?.on('data', (chunk: Buffer) => {
      if (chunk.toString().includes('injected SIGSTOP')) resolve();
    });
  });
  const early = started.ended.then(({ stdout, stderr }) => {
    throw new Error(`it ended before it was stopped: ${stdout}${stderr}`);
  });
  await Promise.race([stopped, early]);
  return started;
}
