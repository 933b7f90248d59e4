import { availableParallelism } from 'node:os';
import { rangeBytesMax, rangePlaintextMax } from '../restore/fetch-range.ts';
import type { Config } from './config/config-schema.ts';

/** How much may be under way at once, so that the process stays within `limits.memoryMiB`. */

/** Node itself, the main thread's heap, and what is in flight. Measured: a seed or restore with no worker more than needed. */
const bytesWithoutWorkers = 300 * 2 ** 20;
/** A thread with its heap, the stretches that it is kept busy with, and what it compresses or opens. Measured: 35 to 37 MiB. */
const workerBytes = 40 * 2 ** 20;
/** What is left after Node itself, its worker threads and the page caches. */
const shareOfMemory = 0.25;
/** A segment in flight exists as the object, and as what the store's client makes of it. Two more are being filled. */
const copiesOfSegment = 3;
/** A range in flight exists as it was fetched, and opened. */
const rangeBytes = rangeBytesMax + rangePlaintextMax;

/** Threads for digest, compression, sealing and opening: one per core, as far as memory goes. */
export function workersOf({ limits }: Config): number {
  return limits.workers ?? within(availableParallelism(), (limits.memoryBytes - bytesWithoutWorkers) / workerBytes);
}

/** What a run with that many workers takes, whatever the limit says. */
export function memoryNeededBytes(config: Config): number {
  return bytesWithoutWorkers + workersOf(config) * workerBytes;
}

export function segmentsInFlightMax({ limits, segmentBytes }: Config): number {
  return within(limits.inFlight, (limits.memoryBytes * shareOfMemory) / (copiesOfSegment * segmentBytes));
}

export function rangesInFlightMax({ limits }: Config): number {
  return within(limits.inFlight, (limits.memoryBytes * shareOfMemory) / rangeBytes);
}

/** Opened blocks that a served point keeps. What is in flight is counted with the rest. */
export function servedCacheBytes({ limits }: Config): number {
  return Math.floor(limits.memoryBytes * shareOfMemory);
}

function within(wanted: number, affordable: number): number {
  return Math.max(1, Math.min(wanted, Math.floor(affordable)));
}
