import type { RetainedPoint } from './control.ts';

/** Which recovery points a machine keeps: pure, by the times in the chain (UTC), so that it needs no key. */

/** How many of each kind are kept, at most. The newest point of a period stands for it. */
export interface RetentionPolicy {
  readonly last: number;
  readonly hourly: number;
  readonly daily: number;
  readonly weekly: number;
  readonly monthly: number;
  readonly yearly: number;
  /** Every point that is younger is kept. */
  readonly withinMs: number;
}

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;
/** 1970-01-01 was a Thursday; weeks begin on Monday. */
const mondayShiftDays = 3;

interface Rule {
  readonly name: string;
  readonly count: (policy: RetentionPolicy) => number;
  /** Two points are of one period when this is the same. */
  readonly period: (point: RetainedPoint) => string;
}

const rules: readonly Rule[] = [
  { name: 'last', count: ({ last }) => last, period: ({ seq }) => String(seq) },
  { name: 'hourly', count: ({ hourly }) => hourly, period: ({ timeMs }) => iso(timeMs).slice(0, 13) },
  { name: 'daily', count: ({ daily }) => daily, period: ({ timeMs }) => iso(timeMs).slice(0, 10) },
  { name: 'weekly', count: ({ weekly }) => weekly, period: ({ timeMs }) => mondayOf(timeMs) },
  { name: 'monthly', count: ({ monthly }) => monthly, period: ({ timeMs }) => iso(timeMs).slice(0, 7) },
  { name: 'yearly', count: ({ yearly }) => yearly, period: ({ timeMs }) => iso(timeMs).slice(0, 4) },
];

/**
 * For each point that is kept the reasons why, such as `daily`. `points` are ascending by seq, which is their true order: a clock that was
 * wrong for a while costs no more than a place in a period. The newest is always kept, and so is one from the future.
 */
export function applyRetention(
  points: readonly RetainedPoint[],
  policy: RetentionPolicy,
  nowMs: number,
): ReadonlyMap<number, readonly string[]> {
  const reasons = new Map<number, string[]>();
  const keep = ({ seq }: RetainedPoint, reason: string) => reasons.set(seq, [...(reasons.get(seq) ?? []), reason]);
  const newest = points.at(-1);
  if (newest !== undefined) keep(newest, 'newest');
  for (const rule of rules) for (const point of newestOfPeriods(points, rule, policy)) keep(point, rule.name);
  for (const point of points) if (point.timeMs > nowMs - policy.withinMs) keep(point, 'young');
  return reasons;
}

function newestOfPeriods(points: readonly RetainedPoint[], rule: Rule, policy: RetentionPolicy): RetainedPoint[] {
  const found = new Map<string, RetainedPoint>();
  for (const point of points.toReversed()) {
    if (found.size >= rule.count(policy)) break;
    const period = rule.period(point);
    if (!found.has(period)) found.set(period, point);
  }
  return [...found.values()];
}

function iso(timeMs: number): string {
  return new Date(timeMs).toISOString();
}

function mondayOf(timeMs: number): string {
  return String(Math.floor((Math.floor(timeMs / dayMs) + mondayShiftDays) / 7));
}
