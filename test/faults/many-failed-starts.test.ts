import { afterAll, beforeAll, expect, it } from 'vitest';
import { StoreUnavailable } from '../../storage-targets/errors.ts';
import { openMemoryTarget } from '../fakes/memory-target.ts';
import { wrapOnly } from '../rig/replica-rig.ts';
import { RigWorkers } from '../rig/rig-workers.ts';
import { FaultWorld, type Fork, runOptions } from './fault-world.ts';

let workers: RigWorkers;
beforeAll(() => {
  workers = new RigWorkers();
});
afterAll(() => workers[Symbol.asyncDispose]());

/** More than the races for a key epoch that one run takes part in. */
const failedStarts = 12;

it.each(['full', 'write-only'] as const)(
  'a run succeeds after many that could not begin (%s access)',
  async (access) => {
    await using world = await FaultWorld.create(workers);
    using fork = world.fork();
    const provider = access === 'full' ? world.rig.provider : wrapOnly(world.rig.provider);
    for (let start = 0; start < failedStarts; start++) {
      await expect(run(world, fork, { access, provider, chainPuts: 'lost' })).rejects.toThrow(StoreUnavailable);
    }
    await run(world, fork, { access, provider, chainPuts: 'done' });
    await fork.publishNext(world.points);
  },
);

async function run(
  world: FaultWorld,
  fork: Fork,
  {
    chainPuts,
    ...options
  }: { access: 'full' | 'write-only'; provider: FaultWorld['rig']['provider']; chainPuts: 'lost' | 'done' },
): Promise<void> {
  const target = openMemoryTarget(fork.store, async ({ kind, name }) => ({
    kind: kind === 'put' && name.includes('/chain/') ? chainPuts : 'done',
  }));
  await world.rig.protect(world.machine, { ...runOptions, ...options, target, stateFolder: fork.stateFolder });
}
