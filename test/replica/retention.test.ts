import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { RetainedPoint } from '../../replica/control.ts';
import { planPrune } from '../../replica/plan-prune.ts';
import { applyRetention, type RetentionPolicy } from '../../replica/retention.ts';

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;
const nothing: RetentionPolicy = { last: 0, hourly: 0, daily: 0, weekly: 0, monthly: 0, yearly: 0, withinMs: 0 };
const start = Date.UTC(2024, 0, 1);

function pointAt(seq: number, timeMs: number): RetainedPoint {
  return { seq, timeMs, digest: new Uint8Array(32) };
}

function hourly(hours: number): readonly RetainedPoint[] {
  return Array.from({ length: hours }, (_, i) => pointAt(i + 1, start + i * hourMs));
}

const seqs = (points: readonly RetainedPoint[], policy: Partial<RetentionPolicy>, nowMs: number): readonly number[] =>
  [...applyRetention(points, { ...nothing, ...policy }, nowMs).keys()].sort((a, b) => a - b);

describe('what retention keeps', () => {
  const points = hourly(72);
  const now = start + 71 * hourMs;
  const late = start + 1000 * dayMs;

  it('is the newest point of each of the last hours, days, weeks, months and years', () => {
    expect(seqs(points, { last: 3 }, now)).toEqual([70, 71, 72]);
    expect(seqs(points, { hourly: 2 }, now)).toEqual([71, 72]);
    expect(seqs(points, { daily: 2 }, now)).toEqual([48, 72]);
    expect(seqs(points, { daily: 9 }, now)).toEqual([24, 48, 72]);
    // 2024 began on a Monday.
    expect(seqs(hourly(24 * 15), { weekly: 3 }, late)).toEqual([24 * 7, 24 * 14, 24 * 15]);
    expect(seqs(hourly(24 * 61), { monthly: 2 }, late)).toEqual([24 * 60, 24 * 61]);
    expect(seqs(hourly(24 * 367), { yearly: 5 }, late)).toEqual([24 * 366, 24 * 367]);
  });

  it('has the newest point always, and every young one, also from a clock that was ahead', () => {
    expect(seqs(points, {}, now)).toEqual([72]);
    expect(seqs(points, { withinMs: 2.5 * hourMs }, now)).toEqual([70, 71, 72]);
    expect(seqs([pointAt(1, now + dayMs), pointAt(2, now - dayMs), pointAt(3, now)], {}, now)).toEqual([1, 3]);
  });

  it('skips periods without a point: a machine that was off for a year loses nothing by it', () => {
    const sparse = [pointAt(1, start), pointAt(2, start + dayMs), pointAt(3, start + 400 * dayMs)];
    expect(seqs(sparse, { daily: 3 }, start + 400 * dayMs)).toEqual([1, 2, 3]);
  });

  it('is the same when it is applied after each point of two years, or once at the end', () => {
    const policy = { ...nothing, last: 2, hourly: 24, daily: 7, weekly: 5, monthly: 12, yearly: 3 };
    let kept: readonly RetainedPoint[] = [];
    const all = hourly(24 * 800).filter(({ seq }) => seq % 5 === 0);
    for (const point of all) {
      const names = applyRetention([...kept, point], policy, point.timeMs);
      kept = [...kept, point].filter(({ seq }) => names.has(seq));
    }
    const last = all.at(-1)?.timeMs ?? 0;
    expect(kept.map(({ seq }) => seq)).toEqual(seqs(all, policy, last));
    expect(kept.length).toBeLessThanOrEqual(2 + 24 + 7 + 5 + 12 + 3);
  });

  it('never shrinks when a policy keeps more', () => {
    const count = fc.nat({ max: 6 });
    const policies = fc.record({
      last: count,
      hourly: count,
      daily: count,
      weekly: count,
      monthly: count,
      yearly: count,
    });
    const times = fc.array(fc.integer({ min: 0, max: 900 * dayMs }), { minLength: 1, maxLength: 40 });
    fc.assert(
      fc.property(times, policies, policies, (list, policy, more) => {
        const points = list.sort((a, b) => a - b).map((timeMs, i) => pointAt(i + 1, start + timeMs));
        const sum = Object.fromEntries(Object.entries(policy).map(([key, n]) => [key, n + (more[key as 'last'] ?? 0)]));
        const now = points.at(-1)?.timeMs ?? 0;
        expect(seqs(points, sum, now)).toEqual(expect.arrayContaining([...seqs(points, policy, now)]));
      }),
    );
  });
});

describe('a plan to prune', () => {
  const points = hourly(10);
  const nowMs = start + 9 * hourMs;
  const rules = { policy: { ...nothing, last: 1 }, nowMs, pinned: new Set<number>(), floorMs: 0 };
  const goes = async (more: object): Promise<readonly number[]> => {
    const plan = await planPrune(points, { ...rules, flags: async () => () => false, ...more });
    return plan.filter(({ reasons }) => reasons.length === 0).map(({ seq }) => seq);
  };

  it('leaves pinned points, those under the floor, and the last good one before a flagged one', async () => {
    expect(await goes({})).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect(await goes({ pinned: new Set([2, 5]) })).toEqual([1, 3, 4, 6, 7, 8, 9]);
    expect(await goes({ floorMs: 3 * hourMs })).toEqual([1, 2, 3, 4, 5, 6, 7]);
    expect(await goes({ flags: async () => (seq: number) => seq === 6 })).toEqual([1, 2, 3, 4, 6, 7, 8, 9]);
    expect(await goes({ flags: async () => (seq: number) => seq >= 6 })).toEqual([1, 2, 3, 4, 6, 7, 8, 9]);
  });

  it('asks for flags only where something would go', async () => {
    const flags = () => Promise.reject(new Error('asked'));
    expect(await goes({ policy: { ...nothing, last: 10 }, flags })).toEqual([]);
    await expect(goes({ flags })).rejects.toThrow('asked');
  });
});
