import { setTimeout as sleep } from 'node:timers/promises';
import { ChangeTrackingLost, SnapshotIncomplete } from '../../errors.ts';
import type { BlockSource, Extent, ReferencePoint } from '../../hypervisor.ts';
import { baseAllocation, type NbdDisk, readsAsZero } from '../../nbd/nbd-disk.ts';
import { nbdBlockSource } from '../../nbd/nbd-source.ts';
import { QemuToolFailed, runQemuImg, serveImage } from '../../nbd/qemu-nbd.ts';

/**
 * A disk that QEMU copied to an image of the scratch folder: all of it, or what changed since a checkpoint. The image's own clusters are
 * then what changed; the rest of the disk is not in the snapshot.
 */

/** Up to here blocks of ours are no larger than the clusters of the qcow2 that libvirt makes; larger ones would need what lies between. */
export const pushedChangesBytesMax = 4 * 2 ** 40;
const allocationDepth = 'qemu:allocation-depth';
/** QEMU lets go of the image a moment after its job has ended. */
const releaseAttemptsMax = 20;
const releasePauseMs = 100;

export interface PushedDisk {
  readonly label: string;
  readonly image: string;
  /** Null: all of the disk was copied. */
  readonly since: string | null;
  readonly referencePoint: ReferencePoint;
  /** Throws ChangeTrackingLost unless the image holds what changed since. */
  requireSince(asked: Uint8Array): void;
}

/** `opening` holds the server. */
export async function openPushedDisk(
  pushed: PushedDisk,
  opening: AsyncDisposableStack,
  signal: AbortSignal,
): Promise<BlockSource> {
  const { label, image, since, referencePoint } = pushed;
  await waitForImage(image, signal);
  const contexts = [baseAllocation, ...(since === null ? [] : [allocationDepth])];
  const served = opening.use(
    await serveImage(
      { path: image, format: 'qcow2', writable: false, contexts, allocationDepth: since !== null },
      signal,
    ),
  );
  const source = nbdBlockSource({ label, disk: served.disk, referencePoint, bitmapSince: null });
  if (since !== null) return changesOnly(pushed, source, served.disk, signal);
  const lost = `disk ${label}: all of it was copied`;
  return {
    ...source,
    changedExtents(asked, eitherSignal) {
      if (asked === null) return source.changedExtents(null, eitherSignal);
      return failing(() => {
        pushed.requireSince(asked);
        throw new ChangeTrackingLost(lost);
      });
    },
  };
}

async function changesOnly(
  pushed: PushedDisk,
  source: BlockSource,
  disk: NbdDisk,
  signal: AbortSignal,
): Promise<BlockSource> {
  const held = await heldRanges(disk, signal);
  const incomplete = (): SnapshotIncomplete =>
    new SnapshotIncomplete(
      `disk ${pushed.label}: the snapshot holds what changed since ${pushed.since}, and more is needed now: run again`,
    );
  return {
    ...source,
    changesOnly: true,
    changedExtents(asked, eitherSignal) {
      if (asked === null)
        return failing(() => {
          throw incomplete();
        });
      return changes(pushed, disk, held, asked, eitherSignal);
    },
    async read(offset, into, eitherSignal) {
      if (!isInside(held, offset, offset + into.length)) throw incomplete();
      await source.read(offset, into, eitherSignal);
    },
  };
}

async function* changes(
  pushed: PushedDisk,
  disk: NbdDisk,
  held: readonly Range[],
  asked: Uint8Array,
  signal: AbortSignal,
): AsyncGenerator<Extent> {
  pushed.requireSince(asked);
  for (const { start, end } of held)
    for await (const { offset, length, flags } of disk.extents(baseAllocation, start, end - start, signal))
      yield { offset, length, zero: (flags & readsAsZero) !== 0 };
}

/** An async generator that only fails. */
// biome-ignore lint/correctness/useYield: it has nothing to give
async function* failing(fail: () => void): AsyncGenerator<Extent> {
  fail();
}

interface Range {
  readonly start: number;
  readonly end: number;
}

/** Ascending and disjoint. */
async function heldRanges(disk: NbdDisk, signal: AbortSignal): Promise<readonly Range[]> {
  const ranges: Range[] = [];
  for await (const { offset, length, flags } of disk.extents(allocationDepth, 0, disk.capacityBytes, signal))
    if (flags !== 0) ranges.push({ start: offset, end: offset + length });
  return ranges;
}

function isInside(ranges: readonly Range[], start: number, end: number): boolean {
  if (start === end) return true;
  let [low, high] = [0, ranges.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((ranges[middle]?.end ?? 0) > start) high = middle;
    else low = middle + 1;
  }
  const range = ranges[low];
  return range !== undefined && range.start <= start && range.end >= end;
}

async function waitForImage(image: string, signal: AbortSignal): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await runQemuImg(['info', '-f', 'qcow2', image], signal);
      return;
    } catch (error) {
      if (!(error instanceof QemuToolFailed) || attempt === releaseAttemptsMax) throw error;
    }
    await sleep(releasePauseMs, undefined, { signal });
  }
}
