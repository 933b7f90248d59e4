/** Of `known`, the one that a person most likely meant by `typed`; null when none is near enough. */
export function nearestKey(typed: string, known: readonly string[]): string | null {
  const distances = known.map((key) => ({ key, distance: editDistance(normalised(typed), normalised(key)) }));
  distances.sort((a, b) => a.distance - b.distance);
  const [best] = distances;
  if (best === undefined) return null;
  return best.distance <= Math.max(1, Math.floor(best.key.length / 3)) ? best.key : null;
}

/** `segment_mib`, `Segment-MiB` and `segmentMiB` are the same word to whoever types them. */
function normalised(key: string): string {
  return key.toLowerCase().replace(/[-_ ]/g, '').slice(0, 100);
}

/** Levenshtein's distance, where two neighbours that changed places count as one slip (optimal string alignment). */
function editDistance(from: string, to: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: to.length + 1 }, (_, column) => column);
  for (let row = 1; row <= from.length; row += 1) {
    const current = [row];
    for (let column = 1; column <= to.length; column += 1) {
      const same = from[row - 1] === to[column - 1];
      const slips = [at(last, column) + 1, at(current, column - 1) + 1, at(last, column - 1) + (same ? 0 : 1)];
      const swapped = from[row - 1] === to[column - 2] && from[row - 2] === to[column - 1];
      if (row > 1 && column > 1 && swapped) slips.push(at(beforeLast, column - 2) + 1);
      current.push(Math.min(...slips));
    }
    beforeLast = last;
    last = current;
  }
  return at(last, to.length);
}

function at(row: readonly number[], column: number): number {
  return row[column] ?? Number.POSITIVE_INFINITY;
}
