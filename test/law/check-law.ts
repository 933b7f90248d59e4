import fc from 'fast-check';
import { timesTried } from '../lanes/quick.ts';
import { RigWorkers } from '../rig/rig-workers.ts';
import { anyHistory, type History } from './history.ts';
import { LawWorld } from './law-world.ts';
import { rareHistories } from './rare-histories.ts';

type Thoroughness = 'each point once' | 'every point, each time';

const lastRun = { do: 'run', resync: false, access: 'full', fault: null } as const;
/** On a busy machine fewer histories are followed, rather than none to the end. */
const timeMaxMs = 420_000;

/** How many histories: FAILKIT_LAW_RUNS says, where it is set. */
export function runsWanted(usual: number): number {
  return Number(process.env.FAILKIT_LAW_RUNS ?? timesTried(usual));
}

/**
 * Random histories. A failure prints the seed, the path and the shrunk history; FAILKIT_LAW_SEED and FAILKIT_LAW_PATH run it
 * again.
 */
export async function checkLaw(
  runs: number,
  stepsMax: number,
  thoroughness: Thoroughness = 'each point once',
): Promise<void> {
  await using workers = new RigWorkers();
  const { FAILKIT_LAW_SEED: seed, FAILKIT_LAW_PATH: path } = process.env;
  await fc.assert(
    fc.asyncProperty(anyHistory(stepsMax), (history) => followHistory(history, workers, thoroughness)),
    {
      numRuns: rareHistories.length + runs,
      examples: rareHistories.map((history): [History] => [history]),
      interruptAfterTimeLimit: timeMaxMs,
      ...(seed === undefined ? {} : { seed: Number(seed) }),
      ...(path === undefined ? {} : { path }),
    },
  );
}

async function followHistory(history: History, workers: RigWorkers, thoroughness: Thoroughness): Promise<void> {
  await using world = await LawWorld.create(history, workers);
  for (const step of history.steps) {
    const points = world.points;
    await world.take(step);
    if (world.points > points && thoroughness === 'every point, each time') await world.expectAll('kms');
  }
  await world.take(lastRun);
  await world.expectAll('recovery');
}
