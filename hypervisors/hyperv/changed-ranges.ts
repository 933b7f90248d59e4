import { changesSince, type HypervChanges } from './hyperv-calls.ts';
import { HypervAnswerInvalid } from './hyperv-errors.ts';
import type { WorkerClient } from './worker-client.ts';

/** What Hyper-V says was written, asked for in windows until the disk is covered, and believed only where it makes sense. */

const mebibyte = 2 ** 20;
const windowBytesFirst = 1024 * mebibyte;
const windowBytesMax = 1024 * 1024 * mebibyte;
/** An answer of so many ranges is some MiB of text. */
const rangesMany = 50_000;
const rangesFew = 5_000;

export interface TrackedDisk {
  readonly path: string;
  /** The id to ask by. */
  readonly since: string;
  readonly capacityBytes: number;
  readonly sectorBytes: number;
}

interface Range {
  readonly offset: number;
  readonly end: number;
}

/** Whole sectors, ascending, disjoint, inside the disk. Throws HypervAnswerInvalid where an answer contradicts itself. */
export async function* changedRanges(
  client: WorkerClient,
  disk: TrackedDisk,
  signal: AbortSignal,
  firstWindowBytes = windowBytesFirst,
): AsyncGenerator<{ readonly offset: number; readonly length: number }> {
  const { path, since, capacityBytes } = disk;
  let windowBytes = firstWindowBytes;
  let waiting: Range | null = null;
  for (let offset = 0; offset < capacityBytes; ) {
    const length = Math.min(windowBytes, capacityBytes - offset);
    const answer = await changesSince(client, { path, since, offset, length }, signal);
    const next = offset + processedOf(disk, answer, length);
    for (const range of rangesOf(disk, answer, offset, next)) {
      // Aligning may bring ranges of two windows together.
      if (waiting !== null && range.offset <= waiting.end)
        waiting = { offset: waiting.offset, end: Math.max(waiting.end, range.end) };
      else {
        if (waiting !== null) yield extentOf(waiting);
        waiting = range;
      }
    }
    offset = next;
    if (answer.offsets.length > rangesMany) windowBytes = Math.max(mebibyte, Math.floor(windowBytes / 4));
    else if (answer.offsets.length < rangesFew) windowBytes = Math.min(windowBytesMax, windowBytes * 2);
  }
  if (waiting !== null) yield extentOf(waiting);
}

function extentOf({ offset, end }: Range) {
  return { offset, length: end - offset };
}

/** Hyper-V may look at less than it was asked for. Where it looked at nothing, asking again would never end. */
function processedOf({ path }: TrackedDisk, { processed }: HypervChanges, length: number): number {
  if (processed >= 1 && processed <= length) return processed;
  throw new HypervAnswerInvalid(`${path}: Hyper-V looked at ${processed} bytes of ${length}`);
}

/** Of one window: in any order, overlapping and unaligned as they come. */
function rangesOf(disk: TrackedDisk, answer: HypervChanges, from: number, to: number): readonly Range[] {
  const { path, sectorBytes, capacityBytes } = disk;
  if (answer.offsets.length !== answer.lengths.length)
    throw new HypervAnswerInvalid(
      `${path}: Hyper-V names ${answer.offsets.length} places and ${answer.lengths.length} lengths`,
    );
  const ranges = answer.offsets.map((offset, i) => {
    const length = answer.lengths[i] ?? 0;
    if (length < 1 || offset < from || offset >= to)
      throw new HypervAnswerInvalid(
        `${path}: Hyper-V names ${length} changed bytes at ${offset}, asked for what lies from ${from} to ${to}`,
      );
    return {
      offset: Math.floor(offset / sectorBytes) * sectorBytes,
      end: Math.min(Math.ceil((offset + length) / sectorBytes) * sectorBytes, capacityBytes),
    };
  });
  return ranges.sort((one, other) => one.offset - other.offset);
}
