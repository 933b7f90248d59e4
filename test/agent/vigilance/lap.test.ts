import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  afterFullRead,
  afterNoShare,
  afterShare,
  type DiskIdentity,
  type Lap,
  type LapPace,
  newLap,
  shareOf,
  unverifiedMs,
  verifiedToMs,
} from '../../../agent/vigilance/lap.ts';

const minuteMs = 60_000;
const hourMs = 60 * minuteMs;
const dayMs = 24 * hourMs;
const startMs = Date.UTC(2026, 2, 1);
const unbounded = Number.POSITIVE_INFINITY;

function diskOf(blockCount: number): DiskIdentity {
  return { diskId: 'd', label: 'system', generation: 1, blockCount };
}

/** A lap beside the truth: when each block was really read, on a clock that nobody bends. */
class Walk {
  lap: Lap;
  trueMs = startMs;
  clockOffMs = 0;
  readonly readMs: number[];
  readBlocks = 0;
  largestShare = 0;
  /** Time that passed and that the clock did not show, because it was set back meanwhile: no arithmetic can know of it. */
  hiddenMs = 0;
  #lastTrueMs = startMs;

  constructor(blockCount: number) {
    this.lap = afterFullRead(diskOf(blockCount), null, startMs);
    this.readMs = new Array(blockCount).fill(startMs);
  }

  run(pace: LapPace, published = true): void {
    const nowMs = this.trueMs + this.clockOffMs;
    const share = shareOf(this.lap, nowMs, pace);
    expect(share.blocks).toBe(share.ranges.reduce((sum, { first, end }) => sum + end - first, 0));
    expect(share.blocks).toBeLessThanOrEqual(Math.min(pace.blocksMax, this.readMs.length));
    let last = 0;
    for (const { first, end } of share.ranges) {
      expect(first).toBeGreaterThanOrEqual(last);
      expect(end).toBeLessThanOrEqual(this.readMs.length);
      last = end;
    }
    if (!published) return;
    this.hiddenMs += Math.max(0, this.trueMs - this.#lastTrueMs - Math.max(0, nowMs - this.lap.lastMs));
    this.#lastTrueMs = this.trueMs;
    for (const { first, end } of share.ranges) this.readMs.fill(this.trueMs, first, end);
    this.readBlocks += share.blocks;
    this.largestShare = Math.max(this.largestShare, share.blocks);
    this.lap = afterShare(this.lap, nowMs, pace, share);
    expect(this.lap.lastMs).toBe(nowMs);
  }

  get oldestReadMs(): number {
    return this.readMs.reduce((oldest, time) => Math.min(oldest, time), Number.POSITIVE_INFINITY);
  }

  expectHonest(): void {
    const trueAge = this.trueMs - this.oldestReadMs;
    expect(unverifiedMs(this.lap) + this.hiddenMs).toBeGreaterThanOrEqual(trueAge);
  }
}

describe('a lap over the disk', () => {
  it('claims no more than was read, whatever the schedule, the bounds, failures and clocks', () => {
    const step = fc.record({
      waitMs: fc.oneof(fc.integer({ min: 0, max: hourMs }), fc.integer({ min: 0, max: 40 * dayMs })),
      published: fc.boolean(),
      jumpMs: fc.oneof(
        { weight: 5, arbitrary: fc.constant(0) },
        fc.integer({ min: -400 * dayMs, max: 400 * dayMs }),
        fc.constantFrom(-1, 1, -hourMs),
      ),
      blocksMax: fc.oneof(fc.constant(unbounded), fc.integer({ min: 1, max: 500 })),
      everyMs: fc.constantFrom(dayMs, 7 * dayMs, 30 * dayMs),
    });
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 700 }), fc.array(step, { maxLength: 60 }), (blockCount, steps) => {
        const walk = new Walk(blockCount);
        for (const { waitMs, published, jumpMs, blocksMax, everyMs } of steps) {
          walk.trueMs += waitMs;
          walk.clockOffMs += jumpMs;
          walk.run({ everyMs, blocksMax }, published);
          if (published) walk.expectHonest();
        }
      }),
      { numRuns: 300 },
    );
  });

  it('keeps every block younger than the limit on any schedule that is not slower than it, once around in about that time', () => {
    const schedule = fc.record({
      blockCount: fc.integer({ min: 1, max: 5_000 }),
      everyDays: fc.constantFrom(1, 7, 30),
      runsPerLimit: fc.oneof(fc.integer({ min: 2, max: 200 }), fc.double({ min: 2, max: 9, noNaN: true })),
    });
    fc.assert(
      fc.property(schedule, ({ blockCount, everyDays, runsPerLimit }) => {
        const walk = new Walk(blockCount);
        const pace = { everyMs: everyDays * dayMs, blocksMax: unbounded };
        for (let i = 0; i < 3 * runsPerLimit; i++) {
          walk.trueMs += Math.floor(pace.everyMs / runsPerLimit);
          expect(walk.trueMs - walk.oldestReadMs, 'just before it is read again').toBeLessThanOrEqual(pace.everyMs);
          walk.run(pace);
          expect(unverifiedMs(walk.lap)).toBeLessThanOrEqual(pace.everyMs);
          walk.expectHonest();
        }
        // Three limits, a zone's head start, and rounding up where runs are rare.
        expect(walk.readBlocks).toBeLessThanOrEqual(blockCount * (3.2 + 12 / runsPerLimit) + 3);
      }),
      { numRuns: 40 },
    );
  });

  it('costs a sync every 15 minutes 1/2880 of the disk', () => {
    const blockCount = 2 ** 24;
    const walk = new Walk(blockCount);
    const pace = { everyMs: 30 * dayMs, blocksMax: unbounded };
    const readMs = walk.readMs;
    expect(readMs.length).toBe(blockCount);
    let lap = walk.lap;
    let total = 0;
    for (let i = 1; i <= 96; i++) {
      const nowMs = startMs + i * 15 * minuteMs;
      const share = shareOf(lap, nowMs, pace);
      expect(share.blocks / blockCount).toBeLessThan(1.02 / 2880);
      total += share.blocks;
      lap = afterShare(lap, nowMs, pace, share);
    }
    expect((total / blockCount) * 30).toBeGreaterThan(1);
    expect((total / blockCount) * 30).toBeLessThan(1.02);
  });

  it('of a small disk that is synced each minute owes nothing until a whole block is due, and then that one', () => {
    const walk = new Walk(10);
    const pace = { everyMs: 30 * dayMs, blocksMax: unbounded };
    for (let i = 0; i < 2 * 24 * 60; i++) {
      walk.trueMs += minuteMs;
      walk.run(pace);
    }
    expect(walk.readBlocks).toBe(0);
    for (let i = 0; i < 24 * 60; i++) {
      walk.trueMs += minuteMs;
      walk.run(pace);
    }
    expect([walk.readBlocks, walk.largestShare]).toEqual([1, 1]);
  });

  it('after a long pause catches up within its bound, and says meanwhile that it is behind', () => {
    const walk = new Walk(10_000);
    const pace = { everyMs: 30 * dayMs, blocksMax: 1_000 };
    walk.trueMs += 60 * dayMs;
    for (let i = 0; i < 9; i++) {
      walk.run(pace);
      expect(unverifiedMs(walk.lap)).toBeGreaterThan(pace.everyMs);
      expect(verifiedToMs(walk.lap)).toBe(startMs);
      walk.trueMs += hourMs;
    }
    walk.run(pace);
    expect(walk.largestShare).toBe(1_000);
    expect(unverifiedMs(walk.lap)).toBeLessThan(dayMs);
    for (let i = 0; i < 24; i++) {
      walk.trueMs += hourMs;
      walk.run(pace);
    }
    expect(walk.readBlocks, 'what was owed was paid').toBeLessThan(10_000 + 1_000);
  });

  it('that never went around says so, and is late from its own beginning on', () => {
    const pace = { everyMs: 10 * dayMs, blocksMax: 10 };
    let lap = newLap(diskOf(100), startMs);
    expect([verifiedToMs(lap), unverifiedMs(lap)]).toEqual([null, 0]);
    for (let day = 1; day <= 12; day++) {
      const nowMs = startMs + day * dayMs;
      lap = afterShare(lap, nowMs, pace, shareOf(lap, nowMs, pace));
      if (day < 10) expect([verifiedToMs(lap), unverifiedMs(lap)]).toEqual([null, day * dayMs]);
    }
    expect(verifiedToMs(lap)).toBeGreaterThan(startMs);
  });

  it('without checks grows older, and owes nothing for that time when they are switched on again', () => {
    const pace = { everyMs: 30 * dayMs, blocksMax: unbounded };
    let lap = newLap(diskOf(6_000), startMs);
    lap = afterNoShare({ ...lap, owedMs: hourMs }, startMs + 10 * dayMs);
    expect([lap.owedMs, unverifiedMs(lap)]).toEqual([0, 10 * dayMs]);
    expect(shareOf(lap, startMs + 10 * dayMs + 15 * minuteMs, pace).blocks).toBe(2);
  });
});

describe('clocks', () => {
  const pace = { everyMs: 30 * dayMs, blocksMax: 50 };

  it.each([
    ['forwards by a year', 365 * dayMs],
    ['back by a year', -365 * dayMs],
    ['back by a minute', -minuteMs],
  ])('that jump %s leave it walking, and right again a lap later', (_, jumpMs) => {
    const walk = new Walk(300);
    const days = (count: number): void => {
      for (let day = 0; day < count; day++) {
        walk.trueMs += dayMs;
        walk.run(pace);
      }
    };
    days(20);
    walk.clockOffMs = jumpMs;
    walk.run(pace);
    expect(verifiedToMs(walk.lap)).toBeLessThanOrEqual(walk.lap.lastMs);
    walk.expectHonest();
    days(40);
    walk.expectHonest();
    expect(unverifiedMs(walk.lap)).toBeLessThanOrEqual(pace.everyMs);
    walk.clockOffMs = 0;
    walk.run(pace);
    expect(verifiedToMs(walk.lap)).toBeLessThanOrEqual(walk.trueMs);
    days(40);
    expect(unverifiedMs(walk.lap)).toBeLessThanOrEqual(pace.everyMs);
    walk.expectHonest();
  });

  it('that are set back while the cursor is inside a zone make the zone no younger than its first block', () => {
    const one = { everyMs: 30 * dayMs, blocksMax: 1 };
    const walk = new Walk(120);
    walk.trueMs += dayMs;
    walk.clockOffMs = 5 * dayMs;
    walk.run(one);
    const firstReadMs = walk.trueMs;
    expect([walk.lap.cursor, walk.lap.zones[0]]).toEqual([1, startMs]);
    walk.clockOffMs = 0;
    walk.trueMs += dayMs;
    walk.run(one);
    expect(walk.lap.cursor).toBe(2);
    expect(walk.lap.zones[0]).toBeLessThanOrEqual(firstReadMs + walk.hiddenMs);
  });

  it('that were ahead when blocks were read do not make them younger once they are set right', () => {
    const walk = new Walk(300);
    walk.clockOffMs = 10 * dayMs;
    for (let day = 0; day < 30; day++) {
      walk.trueMs += dayMs;
      walk.run(pace);
    }
    const ageBefore = unverifiedMs(walk.lap);
    walk.clockOffMs = 0;
    walk.run(pace);
    expect(unverifiedMs(walk.lap)).toBeGreaterThanOrEqual(ageBefore - dayMs);
    walk.expectHonest();
  });
});
