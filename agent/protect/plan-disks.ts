import type { BlockSource, ReferencePoint } from '../../hypervisors/hypervisor.ts';
import { BlockMap, type MapGeometry, type PageSource } from '../../replica/block-map.ts';
import type { DiskState } from '../../replica/manifest.ts';
import { plural } from '../quantities.ts';

/** What to read of each disk, and against which map: decided from what the newest point says of it. */

const tebibyte = 2 ** 40;
const smallestBlockBytes = 64 * 1024;
const diskBlocksMax = 2 ** 26;

/** No disk of a replica may be larger. */
const diskBytesMax = 64 * tebibyte;

/** 64 KiB up to 4 TiB, so that no disk has more than 2^26 blocks. `blocksMax` is lower only in tests. */
function blockSizeFor(capacityBytes: number, blocksMax: number = diskBlocksMax): number {
  let blockSize = smallestBlockBytes;
  while (capacityBytes > blockSize * blocksMax) blockSize *= 2;
  return blockSize;
}

export class DiskTooLarge extends Error {
  readonly code = 'DISK_TOO_LARGE';
  override readonly name = 'DiskTooLarge';
}

/**
 * `sync`: what changed since the newest point, as tracking says or as a scan finds. `resync`: a scan because tracking can't be relied on.
 * `seed`: there is nothing to compare with. `repair`: what is damaged is sent again, changed or not.
 */
type DiskMode = 'sync' | 'resync' | 'seed' | 'repair';

export interface DiskDecision {
  readonly source: BlockSource;
  readonly geometry: MapGeometry;
  readonly generation: number;
  readonly generationReason: string;
  /** Since when to ask for changes; null: a full listing. */
  readonly since: ReferencePoint;
  /** Why the disk is read in full; empty where it is not. */
  readonly fullReadReason: string;
  readonly mode: DiskMode;
  readonly previous: DiskState | null;
  /** The newest map of this generation; empty where there is none. */
  readonly old: BlockMap;
}

export interface DecideOptions {
  /** The operator asked for a full read. */
  readonly resync: boolean;
  /** Why the snapshot was taken whole, although changes were to do; null: it was not. */
  readonly wholeBecause: string | null;
  readonly pages: PageSource;
  readonly blocksMax?: number;
  /** The id of a disk that no point has yet. */
  readonly newDiskId: (label: string) => Uint8Array;
}

export function decideDisk(source: BlockSource, previous: DiskState | null, options: DecideOptions): DiskDecision {
  const { capacityBytes, label } = source;
  if (capacityBytes > diskBytesMax) {
    throw new DiskTooLarge(`disk ${label} has ${capacityBytes} bytes: more than 64 TiB can't be protected`);
  }
  const needed = blockSizeFor(capacityBytes, options.blocksMax);
  const sameGeneration = previous !== null && needed <= previous.blockSize;
  const blockSize = sameGeneration ? previous.blockSize : needed;
  const diskId = previous?.diskId ?? options.newDiskId(label);
  const geometry = { diskId, blockSize, capacityBytes };
  const oldGeometry = sameGeneration ? { ...geometry, capacityBytes: previous.capacityBytes } : geometry;
  const { fullReadReason, mode } = howToRead(source, sameGeneration ? previous : null, options);
  return {
    source,
    geometry,
    generation: generationOf(previous, sameGeneration),
    generationReason: sameGeneration ? previous.generationReason : reasonForGeneration(previous, blockSize),
    since: fullReadReason === '' ? (previous?.referencePoint ?? null) : null,
    fullReadReason,
    mode,
    previous,
    old: new BlockMap(oldGeometry, sameGeneration ? previous.root : null, options.pages),
  };
}

function generationOf(previous: DiskState | null, same: boolean): number {
  if (previous === null) return 1;
  return same ? previous.generation : previous.generation + 1;
}

function reasonForGeneration(previous: DiskState | null, blockSize: number): string {
  if (previous === null) return 'first recovery point with this disk';
  return `the disk outgrew blocks of ${previous.blockSize} bytes: it has blocks of ${blockSize} bytes from now on`;
}

function howToRead(
  source: BlockSource,
  previous: DiskState | null,
  { resync, wholeBecause }: DecideOptions,
): Pick<DiskDecision, 'fullReadReason' | 'mode'> {
  if (previous === null) return { mode: 'seed', fullReadReason: 'first full copy of this disk' };
  if (resync) return { mode: 'resync', fullReadReason: 'resync: the operator asked for it' };
  if (previous.capacityBytes !== source.capacityBytes) {
    const sizes = `from ${previous.capacityBytes} to ${source.capacityBytes} bytes`;
    return { mode: 'resync', fullReadReason: `resync: the disk's size changed ${sizes}` };
  }
  if (wholeBecause !== null) return { mode: 'resync', fullReadReason: `resync: ${wholeBecause}` };
  const tracked = previous.referencePoint !== null;
  return { mode: 'sync', fullReadReason: tracked ? '' : 'this source has no changed block tracking' };
}

/** The same decision after change tracking turned out to be lost, or wrong. */
export function resyncDecision(decision: DiskDecision, why: string): DiskDecision {
  return { ...decision, since: null, mode: 'resync', fullReadReason: `resync: ${why}` };
}

/** The same decision for a disk of which damaged segments have to be left behind. */
export function repairDecision(decision: DiskDecision, damagedSegments: number): DiskDecision {
  const fullReadReason = `repair: ${plural(damagedSegments, 'damaged segment')}`;
  return { ...decision, since: null, mode: 'repair', fullReadReason };
}

/** The same decision without the old map, which this host can't open: everything is sent again. */
export function resendDecision(decision: DiskDecision, why: string, pages: PageSource): DiskDecision {
  return {
    ...decision,
    since: null,
    mode: 'seed',
    fullReadReason: `${why}: everything is sent again`,
    generationReason: decision.previous === null ? why : decision.generationReason,
    old: new BlockMap(decision.geometry, null, pages),
  };
}
