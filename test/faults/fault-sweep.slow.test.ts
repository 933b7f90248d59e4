import { afterAll, beforeAll, describe, it } from 'vitest';
import { RigWorkers } from '../rig/rig-workers.ts';
import type { FaultHow } from './fault-plan.ts';
import { sweepRun, sweptRuns } from './fault-sweeps.ts';

let workers: RigWorkers;
beforeAll(() => {
  workers = new RigWorkers();
});
afterAll(() => workers[Symbol.asyncDispose]());

const hows: readonly FaultHow[] = ['refused', 'lost', 'hangs', 'hangs-late'];

describe.each(sweptRuns)('every call of a %s', (name) => {
  it.each(hows)('%s once: a named error, nothing lost, and the next run succeeds', (how) =>
    sweepRun(name, workers, { how, retries: false, stride: 1 }),
  );
  it.each(['refused', 'lost'] as const)('%s once, and tried again where that may help', (how) =>
    sweepRun(name, workers, { how, retries: true, stride: 1 }),
  );
});
