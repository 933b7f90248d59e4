import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { StoreUnavailable } from '../../storage-targets/errors.ts';
import { openMemoryTarget } from '../fakes/memory-target.ts';
import { RigWorkers } from '../rig/rig-workers.ts';
import { FaultWorld, type Fork, runOptions } from './fault-world.ts';

let workers: RigWorkers;
beforeAll(() => {
  workers = new RigWorkers();
});
afterAll(() => workers[Symbol.asyncDispose]());

/** Data segments of a full copy of the fault world's machine; the last one holds what is left and the pages. */
const dataSegments = 5;

describe('an interrupted first copy', () => {
  it('goes on where it stopped, however often it is interrupted', async () => {
    await using world = await FaultWorld.create(workers);
    using fork = world.fork();
    for (let run = 0; run < 3; run++) await failAfter(world, fork, 1);
    const before = segmentsOf(fork);
    await fork.publishNext(world.points);
    expect(before).toHaveLength(3);
    expect(segmentsOf(fork).length - before.length).toBeLessThanOrEqual(dataSegments - 2);
  });

  it('goes on after everything was sent and only publishing failed', async () => {
    await using world = await FaultWorld.create(workers);
    using fork = world.fork();
    const isPublish = (name: string, puts: number): boolean => name.includes('/chain/') && puts > dataSegments;
    await expect(runUntil(world, fork, isPublish)).rejects.toThrow(StoreUnavailable);
    const before = segmentsOf(fork);
    await fork.publishNext(world.points);
    expect(segmentsOf(fork).length - before.length).toBe(1);
  });
});

async function failAfter(world: FaultWorld, fork: Fork, segments: number): Promise<void> {
  let seen = 0;
  const due = (name: string): boolean => name.includes('/segments/') && ++seen > segments;
  await expect(runUntil(world, fork, due)).rejects.toThrow(StoreUnavailable);
}

/** A run whose store gives no answer to puts from the first one on that `isDue`. */
async function runUntil(
  world: FaultWorld,
  fork: Fork,
  isDue: (name: string, puts: number) => boolean,
): Promise<unknown> {
  let puts = 0;
  let isDown = false;
  const target = openMemoryTarget(fork.store, async ({ kind, name }) => {
    if (kind === 'put' && isDue(name, puts++)) isDown = true;
    return { kind: isDown ? 'lost' : 'done' };
  });
  return await world.rig.protect(world.machine, { ...runOptions, target, stateFolder: fork.stateFolder });
}

function segmentsOf(fork: Fork): readonly string[] {
  return fork.store.names.filter((name) => name.includes('/segments/'));
}
