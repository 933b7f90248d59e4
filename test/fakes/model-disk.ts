import { randomBytes } from 'node:crypto';
import { ChangeTrackingLost } from '../../hypervisors/errors.ts';
import type { BlockSource, Extent, ReferencePoint } from '../../hypervisors/hypervisor.ts';
import { SparseBytes } from './sparse-bytes.ts';

/** A virtual disk in memory with exact changed block tracking. */

const extentBytesMax = 777_777;
const extentsOfOneMax = 1_000;

export interface ModelDiskStyle {
  /** Listings are cut on multiples of this: no power of two, so that they fall inside blocks. */
  readonly grain: number;
  /** How ranges that read as zero appear in a listing. */
  readonly zeros: 'left-out' | 'listed' | 'as-data';
  /** False: a source without changed block tracking. */
  readonly tracks: boolean;
  /** Reports some of what did not change, as trackers of coarse grain do. */
  readonly overReports: boolean;
}

export const plainStyle: ModelDiskStyle = { grain: 4_099, zeros: 'left-out', tracks: true, overReports: false };

interface Touched {
  readonly offset: number;
  readonly length: number;
}

/** Awaited before each call that would reach a hypervisor: the place where a test breaks things. */
export type SourceGate = (call: 'snapshot' | 'extent' | 'read' | 'settle', signal: AbortSignal) => Promise<void>;

export class ModelDisk {
  readonly label: string;
  readonly style: ModelDiskStyle;
  readonly content: SparseBytes;
  #trackingId = randomBytes(8);
  #log: Touched[] = [];
  #loseAfterExtents: number | null = null;

  constructor(label: string, capacityBytes: number, style: ModelDiskStyle = plainStyle) {
    this.label = label;
    this.style = style;
    this.content = new SparseBytes(capacityBytes);
  }

  write(offset: number, bytes: Uint8Array): void {
    this.content.write(offset, bytes);
    this.#log.push({ offset, length: bytes.length });
  }

  discard(offset: number, length: number): void {
    this.content.clear(offset, length);
    this.#log.push({ offset, length });
  }

  /** Tracking says nothing of it, and does not name what is added: as QEMU's bitmaps. */
  resize(capacityBytes: number): void {
    this.content.resize(capacityBytes);
  }

  /** Reference points from before are worth nothing. The next question about changes is refused after so many extents. */
  loseTracking(afterExtents: number): void {
    this.#loseAfterExtents = afterExtents;
  }

  /** Whether the next question about changes since then will be answered. */
  knows(since: ReferencePoint): boolean {
    return since !== null && this.#loseAfterExtents === null && countSince(since, this.#trackingId, this.#log) !== null;
  }

  /** What it will answer to the question about changes since then. */
  namedSince(since: Uint8Array): readonly Touched[] {
    return namedRanges({ ...this.#tracked(), content: this.content }, since);
  }

  #tracked(): Pick<FrozenDisk, 'label' | 'style' | 'log' | 'trackingId'> {
    return { label: this.label, style: this.style, log: [...this.#log], trackingId: this.#trackingId };
  }

  freeze(gate: SourceGate): BlockSource {
    const frozen: FrozenDisk = {
      ...this.#tracked(),
      content: this.content.copy(),
      lose: () => {
        const after = this.#loseAfterExtents;
        if (after === null) return null;
        this.#loseAfterExtents = null;
        this.#trackingId = randomBytes(8);
        this.#log = [];
        return after;
      },
      gate,
    };
    return sourceOf(frozen);
  }
}

interface FrozenDisk {
  readonly label: string;
  readonly style: ModelDiskStyle;
  readonly content: SparseBytes;
  readonly log: readonly Touched[];
  readonly trackingId: Uint8Array;
  /** Extents to yield before tracking is lost; null: it is not. */
  readonly lose: () => number | null;
  readonly gate: SourceGate;
}

function sourceOf(disk: FrozenDisk): BlockSource {
  const { label, content, style, gate } = disk;
  return {
    label,
    capacityBytes: content.capacityBytes,
    referencePoint: style.tracks ? Buffer.concat([disk.trackingId, encodeCount(disk.log.length)]) : null,
    async *changedExtents(since, signal) {
      signal.throwIfAborted();
      let left = since === null ? null : disk.lose();
      const extents = since === null ? allExtents(disk) : changedExtents(disk, since);
      for (const extent of extents) {
        if (left === 0) break;
        await gate('extent', signal);
        yield extent;
        if (left !== null) left--;
      }
      if (left !== null) throw new ChangeTrackingLost(`disk ${label}: its change tracking was reset`);
    },
    async read(offset, into, signal) {
      signal.throwIfAborted();
      await gate('read', signal);
      content.read(offset, into);
    },
    direct: null,
    changesOnly: false,
  };
}

function* allExtents({ content, style }: FrozenDisk): Generator<Extent> {
  if (style.zeros === 'as-data') yield* cut({ offset: 0, length: content.capacityBytes, zero: false });
  else yield* pieces(content, 0, content.capacityBytes, style);
}

type TrackedDisk = Pick<FrozenDisk, 'label' | 'style' | 'content' | 'log' | 'trackingId'>;

function namedRanges(disk: TrackedDisk, since: Uint8Array): readonly Touched[] {
  const { log, style, content } = disk;
  const touched = [...log.slice(decodeSince(disk, since))];
  if (style.overReports) touched.push({ offset: Math.floor(content.capacityBytes / 3), length: style.grain });
  return merged(touched, content.capacityBytes);
}

function* changedExtents(disk: FrozenDisk, since: Uint8Array): Generator<Extent> {
  const { style, content } = disk;
  for (const { offset, length } of namedRanges(disk, since)) {
    if (style.zeros === 'as-data') yield* cut({ offset, length, zero: false });
    // What was discarded has to be said: left out, it would pass for unchanged.
    else yield* pieces(content, offset, offset + length, { ...style, zeros: 'listed' });
  }
}

function decodeSince(disk: Pick<FrozenDisk, 'label' | 'trackingId' | 'log'>, since: Uint8Array): number {
  const count = countSince(since, disk.trackingId, disk.log);
  if (count !== null) return count;
  throw new ChangeTrackingLost(`disk ${disk.label}: the reference point is of another tracking`);
}

/** How much of the log was written by then; null where the reference point is not of this tracking. */
function countSince(since: Uint8Array, trackingId: Uint8Array, log: readonly Touched[]): number | null {
  const reference = Buffer.from(since);
  const count = reference.readUInt32BE(8);
  return reference.subarray(0, 8).equals(trackingId) && count <= log.length ? count : null;
}

function* pieces(content: SparseBytes, from: number, to: number, style: ModelDiskStyle): Generator<Extent> {
  for (const piece of content.pieces(from, to, style.grain)) {
    if (piece.zero && style.zeros === 'left-out') continue;
    yield* cut(piece);
  }
}

/** Into several that touch each other, but never into millions. */
function* cut(extent: Extent): Generator<Extent> {
  const step = Math.max(extentBytesMax, Math.ceil(extent.length / extentsOfOneMax));
  for (let at = 0; at < extent.length; at += step) {
    const length = Math.min(step, extent.length - at);
    yield { offset: extent.offset + at, length, zero: extent.zero };
  }
}

/** Ascending and disjoint, inside the capacity. */
function merged(touched: readonly Touched[], capacityBytes: number): readonly Touched[] {
  const sorted = [...touched].sort((a, b) => a.offset - b.offset);
  const ranges: { offset: number; length: number }[] = [];
  for (const { offset, length } of sorted) {
    const end = Math.min(offset + length, capacityBytes);
    if (offset >= end) continue;
    const open = ranges.at(-1);
    if (open !== undefined && offset <= open.offset + open.length)
      open.length = Math.max(open.length, end - open.offset);
    else ranges.push({ offset, length: end - offset });
  }
  return ranges;
}

function encodeCount(count: number): Uint8Array {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(count);
  return bytes;
}
