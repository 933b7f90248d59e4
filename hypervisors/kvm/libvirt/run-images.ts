import { chmod } from 'node:fs/promises';
import { join } from 'node:path';
import { runQemuImg } from '../../nbd/qemu-nbd.ts';
import { checkpointDocument } from './backup-documents.ts';
import type { DiskTracking } from './disk-tracking.ts';
import type { DiskSizes, LibvirtDisk } from './domain.ts';
import { giveToQemu, type LibvirtSite } from './libvirt-site.ts';

/** The disks of a run, and the images that QEMU writes for them. */

export interface TrackedDisk extends DiskSizes {
  readonly disk: LibvirtDisk;
  readonly tracking: DiskTracking;
}

export function imageOf({ folder, marks }: LibvirtSite, { label }: LibvirtDisk): string {
  return join(folder, `${marks.prefix}${label}.qcow2`);
}

/** libvirt would make it, too, but by jobs of QEMU while the guest stands still. */
export async function makeImage(
  site: LibvirtSite,
  { disk, capacityBytes }: TrackedDisk,
  signal: AbortSignal,
): Promise<void> {
  const image = imageOf(site, disk);
  await runQemuImg(['create', '-q', '-f', 'qcow2', image, String(capacityBytes)], signal);
  // It holds what the guest wrote: for QEMU's eyes only.
  await chmod(image, 0o600);
  await giveToQemu(site, image);
}

export function othersOf({ domain: { disks } }: LibvirtSite, chosen: readonly TrackedDisk[]): readonly string[] {
  return disks.map(({ label }) => label).filter((label) => chosen.every(({ disk }) => disk.label !== label));
}

/** None where no disk can keep a bitmap. */
export function checkpointFor(
  name: string,
  disks: readonly TrackedDisk[],
  others: readonly string[],
): readonly string[] {
  const labels = (tracks: boolean) =>
    disks.filter(({ disk }) => disk.tracksChanges === tracks).map(({ disk }) => disk.label);
  const tracked = labels(true);
  return tracked.length === 0 ? [] : [checkpointDocument(name, tracked, [...labels(false), ...others])];
}
