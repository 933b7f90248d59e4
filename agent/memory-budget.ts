import { rangeBytesMax } from '../restore/restore-disk.ts';
import type { Config } from './config/config-schema.ts';

/** How much may be under way at once, so that the process stays within `limits.memoryMiB`. */

/** What is left after Node itself, its worker threads and the page caches. */
const shareOfMemory = 0.25;
/** A segment in flight exists as bodies, as the sealed object, and as what the store's client makes of it. */
const copiesOfSegment = 3;
/** A range in flight exists as it was fetched, and decompressed. */
const copiesOfRange = 6;

export function segmentsInFlightMax({ limits, segmentBytes }: Config): number {
  return within(limits.inFlight, (limits.memoryBytes * shareOfMemory) / (copiesOfSegment * segmentBytes));
}

export function rangesInFlightMax({ limits }: Config): number {
  return within(limits.inFlight, (limits.memoryBytes * shareOfMemory) / (copiesOfRange * rangeBytesMax));
}

function within(wanted: number, affordable: number): number {
  return Math.max(1, Math.min(wanted, Math.floor(affordable)));
}
