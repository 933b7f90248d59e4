import type { SegmentLife } from './control.ts';

/**
 * Segments that are mostly dead, and go with the points that are there now once the little that the newest point uses of them is sent
 * again: docs/decisions/0091.
 */

/** So much of a segment may be alive, by units. */
const liveShareMax = 0.5;

export interface CompactionBudget {
  /** Sealed bytes to be sent again, at most. */
  readonly bytesMax: number;
  /** Blocks and pages: each is remembered while the run lasts. */
  readonly unitsMax: number;
}

/** Stored bytes of what the newest point uses of it, as far as the chain tells. */
function liveBytesOf({ size, units, dead }: SegmentLife): number {
  return (size * (units - dead)) / units;
}

export function isMostlyDead({ units, dead, death }: SegmentLife): boolean {
  return death === 0 && units - dead <= units * liveShareMax;
}

/** Those with the least share alive first, while the budget lasts: they give the most for a byte. */
export function chooseMostlyDead(lives: Iterable<SegmentLife>, budget: CompactionBudget): readonly SegmentLife[] {
  const candidates: SegmentLife[] = [];
  // A large disk has hundreds of thousands: only these become objects for longer.
  for (const life of lives) if (isMostlyDead(life)) candidates.push(life);
  candidates.sort((a, b) => liveShare(a) - liveShare(b));
  const chosen: SegmentLife[] = [];
  let [bytes, units] = [0, 0];
  for (const life of candidates) {
    bytes += liveBytesOf(life);
    units += life.units - life.dead;
    if (bytes > budget.bytesMax || units > budget.unitsMax) break;
    chosen.push(life);
  }
  return chosen;
}

function liveShare({ units, dead }: SegmentLife): number {
  return (units - dead) / units;
}
