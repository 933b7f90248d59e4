import { expect, it } from 'vitest';
import { Pace } from '../../../agent/progress/pace.ts';
import { formatRemaining } from '../../../agent/quantities.ts';

const total = 100_000;

/** Samples every 200 ms of a run that grows by `rate(elapsedMs)` a second. */
function runFor(elapsedMs: number, rate: (ms: number) => number, pace = new Pace(0)) {
  let done = 0;
  for (let ms = 200; ms <= elapsedMs; ms += 200) {
    done += rate(ms) / 5;
    pace.sample(done, ms);
  }
  return { pace, done };
}

it('a steady run is told to the second', () => {
  const { pace, done } = runFor(10_000, () => 1_000);
  expect(pace.perSecond).toBeCloseTo(1_000, 6);
  expect(pace.remainingMs(total)).toBeCloseTo(total - done, 3);
});

it('nothing is guessed at the start, nor where nothing moves', () => {
  expect(runFor(2_800, () => 1_000).pace.remainingMs(total)).toBeNull();
  expect(runFor(60_000, () => 0).pace.remainingMs(total)).toBeNull();
  expect(runFor(60_000, () => 1).pace.remainingMs(total)).toBeNull();
  expect(new Pace(0).perSecond).toBe(0);
  expect(runFor(3_600_000, () => 3).pace.remainingMs(1_000_000_000)).toBeNull();
});

it('one that becomes slower is believed within a minute, and does not jump', () => {
  const pace = new Pace(0);
  const guesses: number[] = [];
  let done = 0;
  for (let ms = 200; ms <= 90_000; ms += 200) {
    done += (ms < 30_000 ? 1_000 : 200) / 5;
    pace.sample(done, ms);
    if (ms >= 3_200) guesses.push((pace.remainingMs(total) ?? 0) + ms);
  }
  // The guess is of the moment when all will be done: a step of 200 ms moves it by no more than a few seconds.
  for (const [i, guess] of guesses.entries())
    if (i > 0) expect(Math.abs(guess - (guesses[i - 1] ?? 0))).toBeLessThan(8_000);
  expect(pace.perSecond).toBeGreaterThan(190);
  expect(pace.perSecond).toBeLessThan(260);
});

it('what is counted from the beginning again is not taken for going backwards', () => {
  const { pace } = runFor(10_000, () => 1_000);
  pace.sample(100, 10_200);
  pace.sample(300, 10_400);
  expect(pace.perSecond).toBeGreaterThan(0);
  expect(pace.remainingMs(total)).toBeNull();
});

it('it has all the time until it is done, and none afterwards', () => {
  const { pace, done } = runFor(100_000, () => 1_000);
  expect(done).toBe(total);
  expect(pace.remainingMs(total)).toBe(0);
});

it('what is left is said as roughly as it is known', () => {
  const texts = [0, 7_000, 34_000, 58_000, 240_000, 3_590_000, 12_100_000, 200_000_000].map(formatRemaining);
  expect(texts).toEqual([
    'a few seconds',
    'a few seconds',
    'about 35 s',
    'about 1 min',
    'about 4 min',
    'about 1 h 00 min',
    'about 3 h 20 min',
    'about 2 d 8 h',
  ]);
});
