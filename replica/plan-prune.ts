import type { RetainedPoint } from './control.ts';
import { mustKeep } from './retained-points.ts';
import { applyRetention, type RetentionPolicy } from './retention.ts';

/** Which points a policy drops, and why the others stay. */

export interface PlannedPoint extends RetainedPoint {
  /** Why it is kept, such as `daily` or `pinned`; empty: it goes. */
  readonly reasons: readonly string[];
}

export interface PruneRules {
  readonly policy: RetentionPolicy;
  readonly nowMs: number;
  /** Points that somebody holds. */
  readonly pinned: ReadonlySet<number>;
  /** The root key's floor: younger points are never dropped. */
  readonly floorMs: number;
  /** Asked only where something would go: it may cost a request for each point. */
  readonly flags: () => Promise<(point: number) => boolean>;
}

/** `points` are ascending. */
export async function planPrune(points: readonly RetainedPoint[], rules: PruneRules): Promise<readonly PlannedPoint[]> {
  const { policy, nowMs, pinned, floorMs, flags } = rules;
  const kept = applyRetention(points, policy, nowMs);
  const planned = points.map((point) => ({
    ...point,
    reasons: [
      ...(kept.get(point.seq) ?? []),
      ...(pinned.has(point.seq) ? ['pinned'] : []),
      ...(point.timeMs > nowMs - floorMs ? ['floor'] : []),
    ],
  }));
  if (planned.every(({ reasons }) => reasons.length > 0)) return planned;
  const lastGood = mustKeep(
    points.map(({ seq }) => seq),
    await flags(),
  );
  return planned.map((point) =>
    point.reasons.length === 0 && lastGood.has(point.seq) ? { ...point, reasons: ['last unflagged'] } : point,
  );
}
