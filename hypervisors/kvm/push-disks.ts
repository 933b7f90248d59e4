import { join } from 'node:path';
import { NbdServer } from '../nbd/server/nbd-server.ts';
import type { Marks } from './marks.ts';
import type { PushedDisk } from './pushed-disk.ts';
import type { QmpClient } from './qmp-client.ts';
import { giveToQemu } from './scratch-images.ts';
import type { TakenDisk } from './taken-disk.ts';

/**
 * Disks with a thread of their own: a filter before the disk copies what the guest is about to overwrite to the scratch image, so that the
 * guest waits for that alone, and QEMU pushes the frozen disk behind it to our NBD server. Without room the snapshot breaks, and the guest
 * goes on.
 */

/** Of a write of the guest for the scratch image; then the snapshot breaks. */
const copyTimeoutS = 30;
/** A bitmap that is only a mark takes no memory. */
const granularityMax = 2 ** 31;

/** While the guest stands still. */
export async function insertFilters(
  qmp: QmpClient,
  disks: readonly TakenDisk[],
  marks: Marks,
  signal: AbortSignal,
): Promise<void> {
  for (const { index, disk } of disks) {
    const { node, devicePath } = disk;
    const mark = { node, name: marks.behindFilter(index), granularity: granularityMax, disabled: true };
    await qmp.run('block-dirty-bitmap-add', mark, signal);
    const filter = {
      driver: 'copy-before-write',
      'node-name': marks.filter(index),
      file: node,
      target: marks.node(index),
      'on-cbw-error': 'break-snapshot',
      'cbw-timeout': copyTimeoutS,
    };
    await qmp.run('blockdev-add', filter, signal);
    await qmp.run('qom-set', { path: devicePath, property: 'drive', value: marks.filter(index) }, signal);
  }
}

export async function showFrozenDisks(
  qmp: QmpClient,
  disks: readonly TakenDisk[],
  marks: Marks,
  signal: AbortSignal,
): Promise<void> {
  for (const { index } of disks) {
    const frozen = { driver: 'snapshot-access', 'node-name': marks.frozenDisk(index), file: marks.filter(index) };
    await qmp.run('blockdev-add', frozen, signal);
  }
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
