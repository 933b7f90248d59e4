import { blockDigest, prepareDigestKey } from '../../crypto/suite.ts';
import type { BlockSource } from '../../hypervisors/hypervisor.ts';
import { type BlockMap, blockCountOf, type MapGeometry } from '../../replica/block-map.ts';
import { sameBytes } from '../../replica/encoding.ts';
import { digestOf, placesOf } from '../../replica/leaf.ts';
import { SpotCheckMismatch } from './spot-check.ts';
import { blockKind, type Stretch } from './stretch.ts';

/**
 * A disk that was made smaller, and then as large as before, has lost its end, and QEMU's bitmaps say nothing of it (nor do they name the
 * part that was added). One block is enough to know: the last one of the newest point that tracking does not name. If anything is lost,
 * it is.
 */

interface CheckedDisk {
  readonly source: BlockSource;
  readonly geometry: MapGeometry;
  readonly old: BlockMap;
}

/** The blocks that tracking names: a bit each, 8 MiB for the 2^26 that a disk has at most. */
export class NamedBlocks {
  readonly #bits: Uint8Array;

  constructor(geometry: MapGeometry) {
    this.#bits = new Uint8Array(Math.ceil(blockCountOf(geometry) / 8));
  }

  has(block: number): boolean {
    return ((this.#bits[block >> 3] ?? 0) & (1 << (block & 7))) !== 0;
  }

  /** The same stretches, with what they say noted. */
  async *noting(stretches: AsyncIterable<Stretch>): AsyncGenerator<Stretch> {
    for await (const stretch of stretches) {
      this.#note(stretch);
      yield stretch;
    }
  }

  #note({ firstBlock, kinds }: Stretch): void {
    const bits = this.#bits;
    for (let i = 0; i < kinds.length; i++) {
      const block = firstBlock + i;
      if (kinds[i] !== blockKind.untouched) bits[block >> 3] = (bits[block >> 3] ?? 0) | (1 << (block & 7));
    }
  }
}

/** Throws SpotCheckMismatch where the disk has lost its end. */
export async function requireSameEnd(
  disk: CheckedDisk,
  named: NamedBlocks,
  digestKey: Uint8Array,
  signal: AbortSignal,
): Promise<void> {
  const last = await lastUnnamed(disk.old, named, signal);
  if (last === null) return;
  const { label, capacityBytes } = disk.source;
  const { blockSize } = disk.geometry;
  const at = last.block * blockSize;
  const bytes = new Uint8Array(blockSize);
  await disk.source.read(at, bytes.subarray(0, Math.min(blockSize, capacityBytes - at)), signal);
  if (sameBytes(blockDigest(prepareDigestKey(digestKey), bytes), last.digest)) return;
  throw new SpotCheckMismatch(
    `spot check: block ${last.block} of disk ${label} (at byte ${at}) is not what the newest point has, but changed block tracking did not say ` +
      'that it was written: was the disk made smaller, and larger again?',
  );
}

async function lastUnnamed(
  map: BlockMap,
  named: NamedBlocks,
  signal: AbortSignal,
): Promise<{ readonly block: number; readonly digest: Uint8Array } | null> {
  for await (const { firstBlock, runs } of map.leavesFromTheEnd(signal)) {
    const places = placesOf(runs, firstBlock);
    for (let i = places.length - 1; i >= 0; i--) {
      const place = places[i] ?? null;
      if (place !== null && !named.has(firstBlock + i))
        return { block: firstBlock + i, digest: digestOf(place, firstBlock + i) };
    }
  }
  return null;
}
