import { capacityOf, diskExtents } from '../vhdx/chain-reader.ts';
import type { ImageChain } from '../vhdx/image-chain.ts';

/**
 * What no file below the checkpoint holds reads as zero, whatever tracking says of it: nobody says that it tells of blocks that the guest
 * gave back, or of the end of a disk that was made smaller and then as large as before. A block that was written to since is there again:
 * of that one, tracking alone tells.
 */

/** Blocks of VHDX files are whole MiB. Smaller pieces, of which there may be many, are left to tracking. */
const freeBytesMin = 2 ** 20;

export interface ByteRange {
  readonly offset: number;
  readonly length: number;
}

/** Ascending and disjoint. */
export async function* freeRanges(chain: ImageChain, signal: AbortSignal): AsyncGenerator<ByteRange> {
  const capacityBytes = capacityOf(chain);
  for await (const { offset, length, zero } of diskExtents(chain, signal)) {
    if (!zero) continue;
    const start = Math.ceil(offset / freeBytesMin) * freeBytesMin;
    const isLast = offset + length === capacityBytes;
    const end = isLast ? capacityBytes : Math.floor((offset + length) / freeBytesMin) * freeBytesMin;
    if (start < end) yield { offset: start, length: end - start };
  }
}

/** Of two lists, each ascending and disjoint, another one that has what is in either. */
export async function* unitedRanges(
  one: AsyncIterable<ByteRange>,
  other: AsyncIterable<ByteRange>,
): AsyncGenerator<ByteRange> {
  let open: ByteRange | null = null;
  for await (const { offset, length } of inTurn(one, other)) {
    if (open !== null && offset <= open.offset + open.length)
      open = { offset: open.offset, length: Math.max(open.length, offset + length - open.offset) };
    else {
      if (open !== null) yield open;
      open = { offset, length };
    }
  }
  if (open !== null) yield open;
}

/** By where they begin. */
async function* inTurn(one: AsyncIterable<ByteRange>, other: AsyncIterable<ByteRange>): AsyncGenerator<ByteRange> {
  const lists = [one[Symbol.asyncIterator](), other[Symbol.asyncIterator]()] as const;
  try {
    let [first, second] = [await lists[0].next(), await lists[1].next()];
    while (first.done !== true || second.done !== true) {
      if (second.done === true || (first.done !== true && first.value.offset <= second.value.offset)) {
        if (first.done !== true) yield first.value;
        first = await lists[0].next();
      } else {
        yield second.value;
        second = await lists[1].next();
      }
    }
  } finally {
    for (const list of lists) await list.return?.();
  }
}
