/** Which recovery points retention must never drop, whatever else it wants: docs/format.md §8.1, remarks. */

/**
 * The newest point that is not flagged, and for each row of flagged points the last one before it: that is what was there before ransomware
 * or a runaway job, and the points after a flagged one hold what it did, too, flagged or not. `points` are ascending.
 */
export function mustKeep(points: readonly number[], isFlagged: (point: number) => boolean): ReadonlySet<number> {
  const kept = new Set<number>();
  const lastGood = lastUnflagged(points, isFlagged);
  if (lastGood !== null) kept.add(lastGood);
  points.forEach((point, i) => {
    const before = points[i - 1];
    if (before !== undefined && isFlagged(point) && !isFlagged(before)) kept.add(before);
  });
  return kept;
}

/** The newest point before `end` that is not flagged; null where there is none. */
export function lastUnflagged(
  points: readonly number[],
  isFlagged: (point: number) => boolean,
  end: number = Number.POSITIVE_INFINITY,
): number | null {
  return points.findLast((point) => point < end && !isFlagged(point)) ?? null;
}
