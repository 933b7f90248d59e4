import { afterAll, beforeAll, describe, it } from 'vitest';
import { RigWorkers } from '../rig/rig-workers.ts';
import { sweepRun, sweptRuns } from './fault-sweeps.ts';

let workers: RigWorkers;
beforeAll(() => {
  workers = new RigWorkers();
});
afterAll(() => workers[Symbol.asyncDispose]());

/** All calls and all ways to fail are in fault-sweep.slow.test.ts. */
describe.each(sweptRuns)('calls of a %s', { timeout: 120_000 }, (name) => {
  it.each(['lost', 'hangs-late'] as const)('some %s: a named error, nothing lost, and the next run succeeds', (how) =>
    sweepRun(name, workers, { how, retries: false, stride: 29 }),
  );
});
