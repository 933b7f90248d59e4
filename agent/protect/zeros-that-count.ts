import type { Extent } from '../../hypervisors/hypervisor.ts';
import type { BlockMap } from '../../replica/block-map.ts';
import { leafBlocks } from '../../replica/page.ts';

/**
 * The same extents, and of those that read as zero only what the map has leaves for: to clear what is not there takes no time, however large
 * the free space of a disk is. Not for a full listing, where everything is looked at.
 */
export async function* zerosThatCount(
  extents: AsyncIterable<Extent>,
  old: Pick<BlockMap, 'geometry' | 'leafFrom'>,
  signal: AbortSignal,
): AsyncGenerator<Extent> {
  const leafBytes = leafBlocks * old.geometry.blockSize;
  for await (const extent of extents) {
    if (extent.zero) yield* mappedParts(extent, old, leafBytes, signal);
    else yield extent;
  }
}

async function* mappedParts(
  { offset, length }: Extent,
  old: Pick<BlockMap, 'geometry' | 'leafFrom'>,
  leafBytes: number,
  signal: AbortSignal,
): AsyncGenerator<Extent> {
  const end = offset + length;
  for (let at = offset; at < end; ) {
    const leaf = await old.leafFrom(Math.floor(at / leafBytes), signal);
    const from = Math.max(at, (leaf ?? Number.POSITIVE_INFINITY) * leafBytes);
    if (leaf === null || from >= end) return;
    at = Math.min(end, (leaf + 1) * leafBytes);
    yield { offset: from, length: at - from, zero: true };
  }
}
