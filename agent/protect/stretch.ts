import type { Extent } from '../../hypervisors/hypervisor.ts';
import { leafBlocks } from '../../replica/page.ts';

/** Cutting a disk's extents into aligned stretches of blocks: the unit that is read and squeezed at once. */

export const stretchBytes = 4 * 2 ** 20;

/** What the source says of a block. */
export const blockKind = { untouched: 0, read: 1, zero: 2 } as const;

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
