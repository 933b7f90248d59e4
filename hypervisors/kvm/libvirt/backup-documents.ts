import { buildXml, type XmlTree } from './xml.ts';

/** The two documents that begin a snapshot. https://libvirt.org/formatbackup.html, https://libvirt.org/formatcheckpoint.html */

export interface BackupDisk {
  readonly label: string;
  /** Where QEMU keeps what the guest overwrites, or, in push mode, where it copies the disk to. */
  readonly image: string;
  /** The checkpoint whose bitmap is used; null for the whole disk. */
  readonly since: string | null;
}

/** The context under which the NBD server shows what changed. */
export const exportedBitmap = 'changed';

/** `socket`: of the NBD server that is to show the disks. Other disks of the domain are left out. */
export function pullDocument(socket: string, disks: readonly BackupDisk[], others: readonly string[]): string {
  const listed = disks.map(({ label, image, since }) => ({
    name: 'disk',
    attributes: {
      ...modeOf(since),
      name: label,
      type: 'file',
      exportname: label,
      exportbitmap: since === null ? null : exportedBitmap,
    },
    children: [qcow2, { name: 'scratch', attributes: { file: image } }],
  }));
  const server = { name: 'server', attributes: { transport: 'unix', socket } };
  return document('pull', [server, disksOf(listed, others)]);
}

/** libvirt makes the images. */
export function pushDocument(disks: readonly BackupDisk[], others: readonly string[]): string {
  const listed = disks.map(({ label, image, since }) => ({
    name: 'disk',
    attributes: { ...modeOf(since), name: label, type: 'file' },
    children: [qcow2, { name: 'target', attributes: { file: image } }],
  }));
  return document('push', [disksOf(listed, others)]);
}

export function checkpointDocument(name: string, tracked: readonly string[], others: readonly string[]): string {
  const disk = (label: string, checkpoint: string): XmlTree => ({
    name: 'disk',
    attributes: { name: label, checkpoint },
  });
  const disks = [...tracked.map((label) => disk(label, 'bitmap')), ...others.map((label) => disk(label, 'no'))];
  return buildXml({
    name: 'domaincheckpoint',
    children: [
      { name: 'name', children: [name] },
      { name: 'disks', children: disks },
    ],
  });
}

const qcow2: XmlTree = { name: 'driver', attributes: { type: 'qcow2' } };

function modeOf(since: string | null): Record<string, string | null> {
  return { backup: 'yes', backupmode: since === null ? 'full' : 'incremental', incremental: since };
}

function disksOf(listed: readonly XmlTree[], others: readonly string[]): XmlTree {
  const left = others.map((label) => ({ name: 'disk', attributes: { name: label, backup: 'no' } }));
  return { name: 'disks', children: [...listed, ...left] };
}

function document(mode: string, children: readonly XmlTree[]): string {
  return buildXml({ name: 'domainbackup', attributes: { mode }, children });
}
