import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RigWorkers } from '../rig/rig-workers.ts';
import type { FaultHow } from './fault-plan.ts';
import { faultyProtect, openDescriptors, type SweepOptions, sweep } from './fault-sweep.ts';
import { FaultWorld, runOptions, segmentsInFlightMax } from './fault-world.ts';

let workers: RigWorkers;
beforeAll(() => {
  workers = new RigWorkers();
});
afterAll(() => workers[Symbol.asyncDispose]());

const stride = Number(process.env.STRIDE ?? 1);
const hows: readonly FaultHow[] = ['refused', 'lost', 'hangs', 'hangs-late'];

describe.each(hows)('a call that is %s', (how) => {
  it.each([false, true])('in a seed (retries: %s)', async (retries) => {
    await using world = await FaultWorld.create(workers);
    await report('seed', world, { how, retries, stride }, runOptions);
  });
  it.each([false, true])('in a sync (retries: %s)', async (retries) => {
    await using world = await FaultWorld.create(workers);
    await world.publish();
    world.change('one');
    await world.publish();
    world.change('two');
    await report('sync', world, { how, retries, stride }, runOptions);
  });
});

async function report(name: string, world: FaultWorld, options: SweepOptions, runOptions: object): Promise<void> {
  const before = openDescriptors();
  const count = await sweep(world, options, faultyProtect(world, options, runOptions), async (fork) => {
    await fork.requirePoints(world.points);
    await fork.publishNext(world.points);
  });
  process.stdout.write(`${name} ${JSON.stringify(options)}: ${JSON.stringify(count)}\n`);
  expect(openDescriptors()).toBeLessThanOrEqual(before);
  expect(count.orphansMax).toBeLessThanOrEqual(segmentsInFlightMax);
}
