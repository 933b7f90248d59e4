import { stat } from 'node:fs/promises';
import * as z from 'zod';
import { ChangeTrackingLost } from '../../errors.ts';
import type { ReferencePoint } from '../../hypervisor.ts';
import type { Checkpoint } from './checkpoints.ts';
import type { LibvirtDisk } from './domain.ts';

/** Which checkpoint a snapshot of one disk is begun with, and whether the question "what changed since?" can be answered by it. */

/** What a reference point holds. All disks have a bitmap of the checkpoint's name: the image says which of them is meant. */
const point = z.strictObject({ checkpoint: z.string(), image: z.string() });

export interface DiskTracking {
  /** The checkpoint to begin with; null: the whole disk. */
  readonly since: string | null;
  /** What the snapshot's reference point for this disk will be; null where the disk can't keep a bitmap. */
  referencePoint(added: string): ReferencePoint;
  /** Throws ChangeTrackingLost unless the snapshot was begun with just this reference point. */
  requireSince(asked: Uint8Array): void;
}

/** `wanted`: what the run will ask since, as far as it is known: undefined where it is not, null where all is to be read. */
export function trackDisk(
  disk: LibvirtDisk,
  image: string,
  checkpoints: readonly Checkpoint[],
  wanted: ReferencePoint | undefined,
): DiskTracking {
  const judge = (asked: Uint8Array): string | null => judgeReferencePoint(disk, image, checkpoints, asked);
  const since = chooseCheckpoint(disk, image, checkpoints, wanted);
  return {
    since,
    referencePoint: (added) => (disk.tracksChanges ? encode(added, image) : null),
    requireSince(asked) {
      const doubt = judge(asked);
      if (doubt !== null) throw new ChangeTrackingLost(`disk ${disk.label}: ${doubt}`);
      const { checkpoint } = decode(asked) ?? { checkpoint: '' };
      if (checkpoint !== since)
        throw new ChangeTrackingLost(
          `disk ${disk.label}: the snapshot was begun with ${since ?? 'no checkpoint'}, and not with ${checkpoint}`,
        );
    },
  };
}

/** Tells the disk's image from every other: a bitmap stays with its image, whatever name the image is given in the domain. */
export async function identifyImage({ path, serial }: LibvirtDisk, isLocal: boolean): Promise<string> {
  const file = path !== null && isLocal ? await stat(path).catch(() => null) : null;
  // Of a device the number would change at each start of the host.
  const number = file?.isFile() ? ` ${file.ino}` : '';
  return `${path ?? ''}${number}${serial === null ? '' : ` ${serial}`}`;
}

/** The checkpoint that a reference point of any disk names. */
export function checkpointOf(reference: ReferencePoint): string | null {
  return reference === null ? null : (decode(reference)?.checkpoint ?? null);
}

function chooseCheckpoint(
  disk: LibvirtDisk,
  image: string,
  checkpoints: readonly Checkpoint[],
  wanted: ReferencePoint | undefined,
): string | null {
  if (wanted === null || !disk.tracksChanges) return null;
  if (wanted !== undefined)
    return judgeReferencePoint(disk, image, checkpoints, wanted) === null ? checkpointOf(wanted) : null;
  return checkpoints.findLast(({ dirtyBytes }) => dirtyBytes.has(disk.label))?.name ?? null;
}

/** Why it can't be relied on; null when it can. */
function judgeReferencePoint(
  { label, tracksChanges, format }: LibvirtDisk,
  image: string,
  checkpoints: readonly Checkpoint[],
  asked: Uint8Array,
): string | null {
  const decoded = decode(asked);
  if (decoded === null) return 'its reference point is not one of libvirt: the machine was read in another way before';
  if (!tracksChanges) return `its image has the format ${format} now, which keeps no bitmap`;
  if (decoded.image !== image) return `its image is ${image} now and was ${decoded.image}`;
  const checkpoint = checkpoints.find(({ name }) => name === decoded.checkpoint);
  if (checkpoint === undefined)
    return `libvirt has no checkpoint ${decoded.checkpoint} any more: it was deleted, or the domain was defined anew`;
  if (!checkpoint.dirtyBytes.has(label))
    return `its bitmap ${decoded.checkpoint} is missing or broken: QEMU did not end in order, or the image was replaced`;
  return null;
}

function encode(checkpoint: string, image: string): Uint8Array {
  return new TextEncoder().encode(JSON.stringify({ checkpoint, image }));
}

function decode(reference: Uint8Array): z.infer<typeof point> | null {
  try {
    return point.safeParse(JSON.parse(new TextDecoder().decode(reference))).data ?? null;
  } catch {
    return null;
  }
}
