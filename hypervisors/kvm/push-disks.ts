import { join } from 'node:path';
import { NbdServer } from '../nbd/server/nbd-server.ts';
import { addMark, type Marks } from './marks.ts';
import type { PushedDisk } from './pushed-disk.ts';
import type { QmpClient, QmpCommand } from './qmp-client.ts';
import { giveToQemu, type ScratchFolder, scratchImage } from './scratch-images.ts';
import type { TakenDisk } from './taken-disk.ts';

/**
 * Disks with a thread of their own: a filter before the disk copies what the guest is about to overwrite to the scratch image, so that the
 * guest waits for that alone, and QEMU pushes the frozen disk behind it to our NBD server. Without room the snapshot breaks, and the guest
 * goes on.
 */

/** Of a write of the guest for the scratch image; then the snapshot breaks. */
const copyTimeoutS = 30;

/** Of an image that holds nothing: QEMU takes no external snapshot of what has an image on top. */
export const lockImage = 'lock';
export const lockImageBytes = 64 * 1024;

export interface PushPlace {
  readonly marks: Marks;
  readonly scratch: ScratchFolder;
}

/** While the guest stands still. */
export async function insertFilters(
  qmp: QmpClient,
  disks: readonly TakenDisk[],
  { marks, scratch }: PushPlace,
  signal: AbortSignal,
): Promise<void> {
  const image = { driver: 'file', filename: scratchImage(scratch, lockImage), 'read-only': true };
  const lock = { driver: 'qcow2', 'read-only': true, file: image };
  const commands = disks.flatMap(({ index, disk: { node, devicePath } }): readonly QmpCommand[] => {
    const filter = {
      driver: 'copy-before-write',
      'node-name': marks.filter(index),
      file: node,
      target: marks.node(index),
      'on-cbw-error': 'break-snapshot',
      'cbw-timeout': copyTimeoutS,
      // As the disk itself does: what the guest discards would not be let go of otherwise.
      discard: 'unmap',
    };
    return [
      addMark(node, marks.behindFilter(index)),
      ['blockdev-add', filter],
      ['qom-set', { path: devicePath, property: 'drive', value: marks.filter(index) }],
      // An external snapshot taken meanwhile would name the filter as its backing file for ever, or be lost behind it.
      ['blockdev-add', { ...lock, 'node-name': marks.lock(index), backing: marks.filter(index) }],
      ['blockdev-add', { ...lock, 'node-name': marks.lockBehind(index), backing: node }],
    ];
  });
  await qmp.runAll(commands, signal);
}

export async function showFrozenDisks(
  qmp: QmpClient,
  disks: readonly TakenDisk[],
  marks: Marks,
  signal: AbortSignal,
): Promise<void> {
  const show = ({ index }: TakenDisk): QmpCommand => {
    const frozen = { driver: 'snapshot-access', 'node-name': marks.frozenDisk(index), file: marks.filter(index) };
    return ['blockdev-add', frozen];
  };
  await qmp.runAll(disks.map(show), signal);
}

/** Where QEMU pushes to. `ownerOf`: a file of QEMU's user. */
export async function servePushed(
  disks: readonly PushedDisk[],
  folder: string,
  marks: Marks,
  ownerOf: string,
): Promise<AsyncDisposable & { readonly path: string }> {
  const path = join(folder, `${marks.prefix}push`);
  const server = await NbdServer.listen({
    place: { kind: 'unix', path },
    exports: disks.map(({ handler }) => handler),
    defaultExport: null,
    tls: null,
  });
  await giveToQemu(path, ownerOf);
  return { path, [Symbol.asyncDispose]: () => server[Symbol.asyncDispose]() };
}

export async function connectToServer(
  qmp: QmpClient,
  disks: readonly TakenDisk[],
  path: string,
  marks: Marks,
  signal: AbortSignal,
): Promise<void> {
  for (const { index } of disks) {
    const server = { type: 'unix', path };
    const node = { driver: 'nbd', 'node-name': marks.server(index), server, export: marks.exportName(index) };
    await qmp.run('blockdev-add', { ...node, discard: 'unmap', 'detect-zeroes': 'unmap' }, signal);
  }
}
