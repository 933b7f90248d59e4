import { randomBytes } from 'node:crypto';
import { ChangeTrackingLost } from '../errors.ts';
import type { ReferencePoint } from '../hypervisor.ts';
import { QemuToolFailed, runQemuImg } from '../nbd/qemu-nbd.ts';
import { type ImageInfo, readImageInfo } from './image-info.ts';

/**
 * Changed block tracking of a qcow2 image by its persistent dirty bitmaps. Each snapshot adds one, which QEMU fills while the machine
 * runs; the reference point names it. The one before stays until a later snapshot finds that it is not needed any more.
 */

const prefix = 'failkit-';
const granularityBytes = 64 * 1024;

export interface BitmapTracking {
  readonly referencePoint: ReferencePoint;
  /** Bitmaps of ours that a server can export. */
  readonly usable: readonly string[];
  /** The bitmap that says what changed since; throws ChangeTrackingLost. */
  bitmapSince(since: Uint8Array): string;
  /**
   * Removes bitmaps of ours that neither this snapshot nor `bitmapSince` named. Leaves them to a later snapshot where the machine was
   * started meanwhile: the run is over, and must not fail by this.
   */
  tidy(signal: AbortSignal): Promise<void>;
}

/** The image must not be open anywhere. */
export async function startBitmap(path: string, info: ImageInfo, signal: AbortSignal): Promise<BitmapTracking> {
  const added = `${prefix}${randomBytes(8).toString('hex')}`;
  await runQemuImg(['bitmap', '--add', '-g', String(granularityBytes), '-f', 'qcow2', path, added], signal);
  const keep = new Set([added]);
  return {
    referencePoint: new TextEncoder().encode(added),
    usable: info.bitmaps.filter((bitmap) => isOurs(bitmap.name) && !bitmap.inconsistent).map(({ name }) => name),
    bitmapSince(since) {
      const name = new TextDecoder().decode(since);
      keep.add(name);
      requireTrusted(name, path, info);
      return name;
    },
    async tidy(tidySignal) {
      // Nobody asked by an older one: any of them may still be the last point's.
      if (keep.size === 1) return;
      try {
        const { bitmaps } = await readImageInfo(path, 'qcow2', tidySignal);
        const useless = bitmaps.map(({ name }) => name).filter((name) => isOurs(name) && !keep.has(name));
        for (const name of useless) await runQemuImg(['bitmap', '--remove', '-f', 'qcow2', path, name], tidySignal);
      } catch (error) {
        if (!(error instanceof QemuToolFailed)) throw error;
      }
    },
  };
}

function isOurs(name: string): boolean {
  return name.startsWith(prefix);
}

function requireTrusted(name: string, path: string, info: ImageInfo): void {
  const bitmap = info.bitmaps.find((candidate) => candidate.name === name);
  if (bitmap === undefined)
    throw new ChangeTrackingLost(`${path} no longer has the bitmap ${name}: it was copied, converted or replaced`);
  if (bitmap.inconsistent)
    throw new ChangeTrackingLost(
      `the bitmap ${name} of ${path} is inconsistent: the machine did not shut down in order`,
    );
  if (!bitmap.recording) throw new ChangeTrackingLost(`the bitmap ${name} of ${path} was switched off`);
  if (info.hasSnapshots)
    throw new ChangeTrackingLost(`${path} has internal snapshots: going back to one is not recorded in its bitmaps`);
}
