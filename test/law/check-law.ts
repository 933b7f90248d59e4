import fc from 'fast-check';
import { RigWorkers } from '../rig/rig-workers.ts';
import { anyHistory, type History } from './history.ts';
import { LawWorld } from './law-world.ts';

const lastRun = { do: 'run', resync: false, access: 'full', fault: null } as const;

/** `runs` random histories. A failure prints the seed and the shrunk history; FAILKIT_LAW_SEED runs it again. */
export async function checkLaw(runs: number, stepsMax: number): Promise<void> {
  await using workers = new RigWorkers();
  const seed = process.env.FAILKIT_LAW_SEED;
  const path = process.env.FAILKIT_LAW_PATH;
  await fc.assert(
    fc.asyncProperty(anyHistory(stepsMax), (history) => followHistory(history, workers)),
    {
      numRuns: runs,
      interruptAfterTimeLimit: 560_000,
      ...(seed === undefined ? {} : { seed: Number(seed) }),
      ...(path === undefined ? {} : { path }),
    },
  );
}

export async function followHistory(history: History, workers: RigWorkers): Promise<void> {
  await using world = await LawWorld.create(history, workers);
  for (const step of history.steps) await world.take(step);
  await world.take(lastRun);
  await world.expectAll('recovery');
}
