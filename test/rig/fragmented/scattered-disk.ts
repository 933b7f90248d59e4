import { createCipheriv, createHash } from 'node:crypto';
import type { BlockSource, Extent, HypervisorConnection, MachineSnapshot } from '../../../hypervisors/hypervisor.ts';
import { Random } from '../../random.ts';

/**
 * A disk of any size that is not there: each snapshot has so many changed blocks, anywhere, with content that zstd makes a half to a third
 * of. The same seed gives the same blocks with the same content.
 */
export class ScatteredDisk implements HypervisorConnection {
  readonly #disk: ScatteredDiskFields;
  #snapshots: number;

  /** `snapshots` were taken before. */
  constructor(disk: ScatteredDiskFields, snapshots = 0) {
    this.#disk = disk;
    this.#snapshots = snapshots;
  }

  listMachines(): AsyncIterable<never> {
    throw new Error('nobody lists the machines of a scattered disk');
  }

  snapshot(): Promise<MachineSnapshot> {
    this.#snapshots++;
    const source = this.#source(this.#snapshots);
    return Promise.resolve({
      takenAt: new Date(),
      disks: [source],
      excluded: [],
      attachments: [],
      frozenMs: null,
      settleConsistency: () => Promise.resolve('crash-consistent' as const),
      [Symbol.asyncDispose]: () => Promise.resolve(),
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve();
  }

  #source(snapshot: number): BlockSource {
    const { label, blockSize, blockCount } = this.#disk;
    const blocks = changedBlocks(this.#disk, snapshot);
    return {
      label,
      capacityBytes: blockCount * blockSize,
      referencePoint: referencePointOf(snapshot),
      async *changedExtents(since): AsyncGenerator<Extent> {
        if (since === null) throw new Error('the whole of a scattered disk is not there to be read');
        for (const block of blocks) yield { offset: block * blockSize, length: blockSize, zero: false };
      },
      read: (offset, into) => {
        for (let at = 0; at < into.length; at += blockSize)
          fillBlock(into.subarray(at, at + blockSize), `${snapshot} ${offset + at}`);
        return Promise.resolve();
      },
      direct: null,
      // The digests of what does not change are made up: no other block can be compared with the map.
      changesOnly: true,
    };
  }
}

export interface ScatteredDiskFields {
  readonly label: string;
  readonly blockSize: number;
  readonly blockCount: number;
  /** In each snapshot. */
  readonly changes: number;
  readonly seed: number;
}

export function referencePointOf(snapshot: number): Uint8Array {
  return Buffer.from(`snapshot ${snapshot}`);
}

/** Ascending. Snapshots count from 1. */
export function changedBlocks({ blockCount, changes, seed }: ScatteredDiskFields, snapshot: number): readonly number[] {
  const random = new Random(seed + snapshot);
  const blocks = new Set<number>();
  while (blocks.size < changes) blocks.add(random.below(blockCount));
  return [...blocks].sort((a, b) => a - b);
}

const pieceBytes = 256;
const zeros = new Uint8Array(64 * 1024);

/** Pieces that are in part new, and in part what the piece before had in that place. */
function fillBlock(block: Uint8Array, seed: string): void {
  const key = createHash('sha256').update(seed).digest();
  const stream = createCipheriv('aes-128-ctr', key.subarray(0, 16), key.subarray(16));
  for (let at = 0; at < block.length; at += zeros.length) {
    block.set(stream.update(zeros.subarray(0, Math.min(zeros.length, block.length - at))), at);
  }
  // Of each piece between a third and a half is new.
  const newBytes = Math.floor(pieceBytes * (1 / 3 + (key[0] ?? 0) / 256 / 6));
  for (let at = pieceBytes; at < block.length; at += pieceBytes)
    block.copyWithin(at + newBytes, at - pieceBytes + newBytes, at);
}
