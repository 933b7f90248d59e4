import { ChangeTrackingLost } from '../errors.ts';
import type { BlockSource, Extent, ReferencePoint } from '../hypervisor.ts';
import { baseAllocation, isDirty, type NbdDisk, readsAsZero } from './nbd-disk.ts';

/** A disk behind an NBD server: what reads as zero is known without reading it, and what changed where a bitmap tells. */

export interface NbdSource {
  readonly label: string;
  readonly disk: NbdDisk;
  /** Where the bitmaps are asked for; the disk itself unless given. */
  readonly dirtyDisk?: NbdDisk;
  readonly referencePoint: ReferencePoint;
  /** The bitmap that says what changed since; null where nothing is tracked. May throw ChangeTrackingLost. */
  readonly bitmapSince: ((since: Uint8Array) => string) | null;
}

export function nbdBlockSource(source: NbdSource): BlockSource {
  const { label, disk, referencePoint } = source;
  return {
    label,
    capacityBytes: disk.capacityBytes,
    referencePoint,
    changedExtents: (since, signal) =>
      since === null ? allExtents(source, signal) : dirtyExtents(source, since, signal),
    read: (offset, into, signal) => disk.read(offset, into, signal),
    direct: null,
    changesOnly: false,
  };
}

async function* allExtents({ disk }: NbdSource, signal: AbortSignal): AsyncGenerator<Extent> {
  if (!disk.contexts.includes(baseAllocation)) {
    yield { offset: 0, length: disk.capacityBytes, zero: false };
    return;
  }
  for await (const { offset, length, flags } of disk.extents(baseAllocation, 0, disk.capacityBytes, signal))
    yield { offset, length, zero: (flags & readsAsZero) !== 0 };
}

/** To read a little is cheaper than to ask whether it reads as zero. */
const allocationAskedBytesMin = 1024 * 1024;

/** What was written since, each part of it data or, after a trim, zeros. */
async function* dirtyExtents(
  { label, disk, dirtyDisk = disk, bitmapSince }: NbdSource,
  since: Uint8Array,
  signal: AbortSignal,
): AsyncGenerator<Extent> {
  if (bitmapSince === null) throw new ChangeTrackingLost(`disk ${label} has no changed block tracking any more`);
  const context = `qemu:dirty-bitmap:${bitmapSince(since)}`;
  if (!dirtyDisk.contexts.includes(context))
    throw new ChangeTrackingLost(`the server of disk ${label} does not offer ${context}`);
  for await (const dirty of dirtyDisk.extents(context, 0, dirtyDisk.capacityBytes, signal)) {
    if ((dirty.flags & isDirty) === 0) continue;
    if (dirty.length < allocationAskedBytesMin || !disk.contexts.includes(baseAllocation))
      yield { offset: dirty.offset, length: dirty.length, zero: false };
    else
      for await (const { offset, length, flags } of disk.extents(baseAllocation, dirty.offset, dirty.length, signal))
        yield { offset, length, zero: (flags & readsAsZero) !== 0 };
  }
}
