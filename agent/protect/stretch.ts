import type { Extent } from '../../hypervisors/hypervisor.ts';
import { leafBlocks } from '../../replica/page.ts';
import type { BlockRange } from '../vigilance/lap.ts';

/** Cutting a disk's extents into aligned stretches of blocks: the unit that is read and squeezed at once. */

export const stretchBytes = 4 * 2 ** 20;

/**
 * What the source says of a block. `verify`: it says untouched, and a spot check reads it all the same. `resend`: so does compaction,
 * which stores it again.
 */
export const blockKind = { untouched: 0, read: 1, zero: 2, verify: 3, resend: 4 } as const;

export function isToRead(kind: number | undefined): boolean {
  return kind === blockKind.read || kind === blockKind.verify || kind === blockKind.resend;
}

/** Stretches of few blocks are worked on together, up to so many bytes: a message to a thread takes as long as a block or two. */
const batchBytesMax = 2 ** 20;

/** Consecutive blocks inside one leaf. */
export interface Stretch {
  readonly firstBlock: number;
  /** One `blockKind` per block. */
  readonly kinds: Uint8Array;
}

export interface StretchOptions {
  readonly blockSize: number;
  readonly blockCount: number;
  /** A full listing: what no extent covers reads as zero. Otherwise it was not touched. */
  readonly full: boolean;
}

/** Blocks in a stretch: a divisor of a leaf. */
function stretchBlocks(blockSize: number): number {
  return Math.min(leafBlocks, Math.max(1, stretchBytes / blockSize));
}

/** Ascending; a stretch without anything to do is left out unless the listing is full, where it says *all zero*. */
export async function* stretches(extents: AsyncIterable<Extent>, options: StretchOptions): AsyncGenerator<Stretch> {
  const length = stretchBlocks(options.blockSize);
  let next = 0;
  let open: Stretch | null = null;
  for await (const extent of extents) {
    const first = Math.floor(extent.offset / options.blockSize);
    const end = Math.ceil((extent.offset + extent.length) / options.blockSize);
    for (let block = first; block < end; ) {
      const start = block - (block % length);
      if (open === null || open.firstBlock !== start) {
        if (open !== null) yield open;
        yield* untouched(next, start, options);
        open = newStretch(start, options);
        next = start + length;
      }
      const until = Math.min(end, start + length);
      markBlocks(open, block, until, extent, options.blockSize);
      block = until;
    }
  }
  if (open !== null) yield open;
  yield* untouched(next, options.blockCount, options);
}

/** The stretches of a full listing that no extent touches. */
function* untouched(from: number, to: number, options: StretchOptions): Generator<Stretch> {
  if (!options.full) return;
  const length = stretchBlocks(options.blockSize);
  for (let start = from; start < to; start += length) yield newStretch(start, options);
}

function newStretch(firstBlock: number, options: StretchOptions): Stretch {
  const count = Math.min(stretchBlocks(options.blockSize), options.blockCount - firstBlock);
  return { firstBlock, kinds: new Uint8Array(count).fill(options.full ? blockKind.zero : blockKind.untouched) };
}

/** A block that an extent covers in part is read: the rest of it may hold anything. */
function markBlocks(stretch: Stretch, from: number, to: number, extent: Extent, blockSize: number): void {
  for (let block = from; block < to; block++) {
    const covered = extent.offset <= block * blockSize && extent.offset + extent.length >= (block + 1) * blockSize;
    const i = block - stretch.firstBlock;
    const already = stretch.kinds[i] === blockKind.read;
    stretch.kinds[i] = extent.zero && covered && !already ? blockKind.zero : blockKind.read;
  }
}

/**
 * The same stretches, and between them those of the blocks that are to be read although no extent touches them. `ranges` are ascending
 * and disjoint.
 */
export async function* withMarks(
  wanted: AsyncIterable<Stretch>,
  ranges: readonly BlockRange[],
  kind: typeof blockKind.verify | typeof blockKind.resend,
  options: StretchOptions,
): AsyncGenerator<Stretch> {
  const starts = startsOf(ranges, stretchBlocks(options.blockSize));
  const mark = marker(ranges, kind);
  let next = starts.next();
  for await (const stretch of wanted) {
    for (; next.done !== true && next.value < stretch.firstBlock; next = starts.next())
      yield mark(newStretch(next.value, options));
    if (next.value === stretch.firstBlock) next = starts.next();
    yield mark(stretch);
  }
  for (; next.done !== true; next = starts.next()) yield mark(newStretch(next.value, options));
}

/** First blocks of the stretches that the ranges touch, each once. */
function* startsOf(ranges: readonly BlockRange[], length: number): Generator<number> {
  let next = 0;
  for (const { first, end } of ranges) {
    for (next = Math.max(next, first - (first % length)); next < end; next += length) yield next;
  }
}

/** Marks one stretch after the other, ascending: what lies before a stretch is not looked at again. */
function marker(ranges: readonly BlockRange[], kind: number): (stretch: Stretch) => Stretch {
  let from = 0;
  return (stretch) => {
    const stretchEnd = stretch.firstBlock + stretch.kinds.length;
    while ((ranges[from]?.end ?? Infinity) <= stretch.firstBlock) from++;
    for (let at = from; (ranges[at]?.first ?? Infinity) < stretchEnd; at++) {
      const { first = 0, end = 0 } = ranges[at] ?? {};
      const to = Math.min(stretch.kinds.length, end - stretch.firstBlock);
      for (let i = Math.max(0, first - stretch.firstBlock); i < to; i++)
        if (stretch.kinds[i] === blockKind.untouched || stretch.kinds[i] === blockKind.verify) stretch.kinds[i] = kind;
    }
    return stretch;
  };
}

/** What is touched of the same stretches, and a few small ones at a time. */
export async function* inBatches(
  wanted: AsyncIterable<Stretch>,
  { blockSize }: StretchOptions,
): AsyncGenerator<readonly Stretch[]> {
  let batch: Stretch[] = [];
  let bytes = 0;
  for await (const whole of wanted) {
    for (const stretch of touchedParts(whole)) {
      const own = stretch.kinds.length * blockSize;
      if (batch.length > 0 && bytes + own > batchBytesMax) {
        yield batch;
        batch = [];
        bytes = 0;
      }
      batch.push(stretch);
      bytes += own;
    }
  }
  if (batch.length > 0) yield batch;
}

/** Without what is untouched between them: it would take as much room as what is read. */
function* touchedParts({ firstBlock, kinds }: Stretch): Generator<Stretch> {
  const isTouched = (kind: number | undefined): boolean => kind !== undefined && kind !== blockKind.untouched;
  for (let first = 0; first < kinds.length; first++) {
    let end = first;
    while (isTouched(kinds[end])) end++;
    if (end === first) continue;
    yield { firstBlock: firstBlock + first, kinds: kinds.subarray(first, end) };
    first = end;
  }
}
