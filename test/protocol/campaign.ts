import { randomInt } from 'node:crypto';
import { timesTried } from '../lanes/quick.ts';
import type { simulate } from './simulate.ts';
import type { Counters } from './world.ts';

/** Runs of the quick lane, a few seconds; the slow lane does 25 times as many. FAILKIT_PROTOCOL_RUNS says another number. */
const runsDefault = 100;
const seedsOfQuickLane = 1_000_000;

export function campaignRuns(): number {
  const asked = Number(process.env.FAILKIT_PROTOCOL_RUNS ?? timesTried(runsDefault));
  if (!Number.isSafeInteger(asked) || asked < 1) throw new RangeError('FAILKIT_PROTOCOL_RUNS is not a number of runs');
  return asked;
}

/** A violation names its seed: FAILKIT_PROTOCOL_SEED begins with that one. */
export function firstSeed(): number {
  return Number(process.env.FAILKIT_PROTOCOL_SEED ?? randomInt(seedsOfQuickLane, 2 ** 31));
}

export interface Campaign {
  /** What was found, by seed; the first few. */
  readonly violations: readonly string[];
  readonly totals: Counters;
}

const violationsMax = 5;

/** Simulates the seeds from `first` on, and adds up what happened in them. */
export async function runCampaign(run: typeof simulate, first: number, runs: number): Promise<Campaign> {
  const violations: string[] = [];
  let totals: Counters | null = null;
  for (let seed = first; seed < first + runs && violations.length < violationsMax; seed++) {
    const { violation, counters } = await run(seed);
    if (violation !== null) violations.push(`seed ${seed}: ${violation.message}`);
    totals = totals === null ? counters : added(totals, counters);
  }
  if (totals === null) throw new RangeError('a campaign without runs');
  return { violations, totals };
}

function added(a: Counters, b: Counters): Counters {
  return {
    publishes: a.publishes + b.publishes,
    adoptions: a.adoptions + b.adoptions,
    fenced: a.fenced + b.fenced,
    prunes: a.prunes + b.prunes,
    swept: a.swept + b.swept,
    readings: a.readings + b.readings,
    copies: a.copies + b.copies,
    locks: a.locks + b.locks,
    locked: a.locked + b.locked,
    readingsOfPruned: a.readingsOfPruned + b.readingsOfPruned,
  };
}
