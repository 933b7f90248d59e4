import { expect } from 'vitest';
import type { RigWorkers } from '../rig/rig-workers.ts';
import { FaultPlan } from './fault-plan.ts';
import {
  faultyProtect,
  faultyRestore,
  openDescriptors,
  type SweepCount,
  type SweepOptions,
  sweep,
} from './fault-sweep.ts';
import { FaultWorld, runOptions, segmentsInFlightMax } from './fault-world.ts';

/** The sweeps over a seed, a sync and a restore. Each prints what it met. */

export const sweptRuns = ['seed', 'sync', 'restore'] as const;
export type SweptRun = (typeof sweptRuns)[number];

/** Besides what was in flight: the last segment of a run holds its pages, which a later run makes anew. */
const pageSegments = 1;

export async function sweepRun(name: SweptRun, workers: RigWorkers, options: SweepOptions): Promise<void> {
  await using world = await FaultWorld.create(workers);
  if (name !== 'seed') await publishTwice(world);
  const before = openDescriptors();
  const count = name === 'restore' ? await sweepRestore(world, options) : await sweepProtect(world, options);
  process.stdout.write(line(name, options, count));
  expect(count.failed + count.succeeded).toBeGreaterThan(0);
  expect(count.orphansMax).toBeLessThanOrEqual(segmentsInFlightMax + pageSegments);
  expect(openDescriptors()).toBeLessThanOrEqual(before);
}

async function publishTwice(world: FaultWorld): Promise<void> {
  await world.publish();
  world.change('one');
  await world.publish();
  world.change('two');
}

async function sweepProtect(world: FaultWorld, options: SweepOptions): Promise<SweepCount> {
  return await sweep(world, options, faultyProtect(world, options, runOptions), async (fork) => {
    await fork.publishNext(world.points);
  });
}

async function sweepRestore(world: FaultWorld, options: SweepOptions): Promise<SweepCount> {
  const [point = 0, disks = new Map()] = [...world.points].at(-1) ?? [];
  const run = faultyRestore(world, options, point);
  return await sweep(world, options, run, async (fork) => {
    await run(new FaultPlan(0, 'refused'), fork);
    fork.requireOutputs(disks);
  });
}

function line(name: SweptRun, { how, retries, stride }: SweepOptions, count: SweepCount): string {
  const { calls, failed, succeeded, orphansMax } = count;
  const cells = [name, how, retries ? 'retried' : 'not retried', `every ${stride}`, `${calls} calls`];
  return `fault sweep: ${[...cells, `${failed} runs failed by name`, `${succeeded} succeeded`, `${orphansMax} orphans at most`].join(' | ')}\n`;
}
