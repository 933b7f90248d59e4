import { cpus } from 'node:os';
import { expect, it } from 'vitest';
import { openArena } from '../../bench/arena.ts';
import { gatherInstalled } from '../../bench/contestants/all.ts';
import { restic } from '../../bench/contestants/restic.ts';
import { expectedRatios } from '../../bench/expected-ratios.ts';
import { type Row, raceRound, steps } from '../../bench/race.ts';
import { disturbed, ratiosOf, regressions } from '../../bench/ratios.ts';
import { shortContestants, shortSource } from '../../bench/short.ts';
import { minioNeeds } from '../peers/s3.ts';
import { peerNeeds } from '../peers/server-process.ts';

/** Each takes all programs through one more round, in turns; the shortest runs of all rounds count. */
const roundsMax = 5;
/** No round begins later: on a busy machine one takes minutes. */
const beginsUntilMs = 480_000;

const expected = expectedRatios();
const needs =
  (await minioNeeds()) ??
  (await peerNeeds(restic.peer ?? '')) ??
  (cpus().length === expected.cores ? null : `needs a machine with ${expected.cores} cores, as the recorded one`);

it('seed, resync and restore are as much faster than others as was recorded, within a quarter', async (test) => {
  if (needs !== null) test.skip(needs);
  // Others than restic only where somebody installed them: to compile them takes as long as all tests.
  const contestants = gatherInstalled(shortContestants);
  const absent = shortContestants.filter((one) => !contestants.includes(one)).map(({ name }) => name);
  await using arena = await openArena({ source: shortSource, image: null });
  const race = { contestants, compressions: ['fastest' as const], steps };
  const until = performance.now() + beginsUntilMs;
  const rows: Row[] = [];
  let worse: readonly string[] = [];
  let unknown: readonly string[] = [];
  for (let round = 1; round <= roundsMax && performance.now() < until; round++) {
    rows.push(...(await raceRound(arena, race, round)));
    worse = regressions(expected.ratios, ratiosOf(rows), absent);
    unknown = disturbed(expected.ratios, ratiosOf(rows), absent);
    if (worse.length === 0 && unknown.length === 0) break;
  }
  expect(worse).toEqual([]);
  // CPU times were fine.
  if (unknown.length > 0) test.skip(`needs a quieter machine for the wall times of ${unknown.join(', ')}`);
});
