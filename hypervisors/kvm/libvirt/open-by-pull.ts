import { join } from 'node:path';
import { SourceUnreadable } from '../../errors.ts';
import type { BlockSource, SnapshotOptions } from '../../hypervisor.ts';
import { baseAllocation, NbdDisk } from '../../nbd/nbd-disk.ts';
import { nbdBlockSource } from '../../nbd/nbd-source.ts';
import type { NbdAddress } from '../../nbd/nbd-uri.ts';
import { watchScratch } from '../scratch-images.ts';
import { exportedBitmap, pullDocument } from './backup-documents.ts';
import { endJobAtLast, type LibvirtSite } from './libvirt-site.ts';
import type { OpenSnapshot } from './open-snapshot.ts';
import { checkpointFor, imageOf, makeImage, othersOf, type TrackedDisk } from './run-images.ts';
import { SnapshotHealth } from './snapshot-health.ts';
import { forwardSocket } from './ssh-forward.ts';
import { takePoint } from './take-point.ts';

/** An NBD server inside QEMU shows the disks as they were; what the guest overwrites is kept in the scratch folder. */

/** Linux: sun_path holds 108 bytes, the final NUL included. */
const socketPathBytesMax = 107;

export async function openByPull(
  site: LibvirtSite,
  disks: readonly TrackedDisk[],
  added: string,
  { quiesce }: SnapshotOptions,
  opening: AsyncDisposableStack,
  signal: AbortSignal,
): Promise<OpenSnapshot> {
  const { place, scratch } = site;
  const socket = socketOf(site);
  const others = othersOf(site, disks);
  const listed = disks.map(({ disk, tracking: { since } }) => ({
    label: disk.label,
    image: imageOf(site, disk),
    since,
  }));
  const documents = [pullDocument(socket, listed, others), ...checkpointFor(added, disks, others)];
  if (place.kind === 'here') for (const disk of disks) await makeImage(site, disk, signal);
  endJobAtLast(site, opening);
  const taken = await takePoint(site, documents, quiesce);
  signal.throwIfAborted();
  const health = opening.use(new SnapshotHealth(site));
  if (place.kind === 'here') opening.use(watchScratch(scratch, (full) => health.giveUp(full)));
  const path = place.kind === 'here' ? socket : opening.use(await forwardSocket(place, socket, signal)).path;
  const sources: BlockSource[] = [];
  for (const tracked of disks) sources.push(health.watching(await openExport(tracked, path, added, opening, signal)));
  return { ...taken, sources, check: (either) => health.check(either) };
}

function socketOf({ folder, marks }: LibvirtSite): string {
  const socket = join(folder, `${marks.prefix}nbd`);
  if (Buffer.byteLength(socket) <= socketPathBytesMax) return socket;
  throw new SourceUnreadable(
    `the path of the scratch folder is too long for a socket in it: ${socket}: name a shorter one`,
  );
}

async function openExport(
  { disk: { label }, tracking }: TrackedDisk,
  socket: string,
  added: string,
  opening: AsyncDisposableStack,
  signal: AbortSignal,
): Promise<BlockSource> {
  const address: NbdAddress = {
    transport: { kind: 'unix', path: socket },
    exportName: label,
    tls: false,
    serverName: 'localhost',
  };
  const disk = opening.use(await NbdDisk.open(address, { contexts: [baseAllocation] }, signal));
  const contexts = [`qemu:dirty-bitmap:${exportedBitmap}`];
  // On a connection of its own: whoever asks for both has QEMU look up the allocation of the whole disk.
  const dirtyDisk = tracking.since === null ? disk : opening.use(await NbdDisk.open(address, { contexts }, signal));
  return nbdBlockSource({
    label,
    disk,
    dirtyDisk,
    referencePoint: tracking.referencePoint(added),
    bitmapSince(since) {
      tracking.requireSince(since);
      return exportedBitmap;
    },
  });
}
