import { chmod, readFile } from 'node:fs/promises';
import { basename } from 'node:path';
import type { BlockSource } from '../hypervisor.ts';
import { baseAllocation, NbdDisk } from '../nbd/nbd-disk.ts';
import { nbdBlockSource } from '../nbd/nbd-source.ts';
import type { NbdAddress } from '../nbd/nbd-uri.ts';
import { MachineBusy, QmpRefused } from './kvm-errors.ts';
import type { Marks } from './marks.ts';
import type { QmpClient } from './qmp-client.ts';
import type { TakenDisk } from './taken-disk.ts';

/** Disks that are read over the NBD server inside QEMU. */

const connectionsMax = 64;

export async function exportDisks(
  qmp: QmpClient,
  disks: readonly TakenDisk[],
  marks: Marks,
  nbdSocket: string,
  opening: AsyncDisposableStack,
  signal: AbortSignal,
): Promise<ReadonlyMap<string, BlockSource>> {
  const sources = new Map<string, BlockSource>();
  if (disks.length === 0) return sources;
  await startServer(qmp, nbdSocket, signal);
  for (const taken of disks)
    sources.set(taken.disk.label, await exportDisk(qmp, taken, marks, nbdSocket, opening, signal));
  return sources;
}

async function startServer(qmp: QmpClient, path: string, signal: AbortSignal): Promise<void> {
  const addr = { type: 'unix', data: { path } };
  const start = () => qmp.run('nbd-server-start', { addr, 'max-connections': connectionsMax }, signal);
  try {
    await start().catch(async (error: unknown) => {
      // One that a killed run left, in a scratch folder of another name, or whose socket somebody removed.
      if (!(error instanceof QmpRefused) || !(await isListening(basename(path)))) throw error;
      await qmp.run('nbd-server-stop', {}, signal);
      await start();
    });
    // QEMU makes it by its own umask, and whoever may connect reads the disks.
    await chmod(path, 0o600);
  } catch (cause) {
    if (!(cause instanceof QmpRefused)) throw cause;
    throw new MachineBusy(`${cause.message}: QEMU has one NBD server, and somebody else uses it: end that first`, {
      cause,
    });
  }
}

/** Linux lists what listens on this host also where the socket's file is gone. */
async function isListening(name: string): Promise<boolean> {
  const listed = await readFile('/proc/net/unix', 'utf8').catch(() => '');
  return listed.split('\n').some((line) => line.endsWith(`/${name}`) && line.includes(' 00010000 '));
}

async function exportDisk(
  qmp: QmpClient,
  { index, disk, tracking }: TakenDisk,
  marks: Marks,
  nbdSocket: string,
  opening: AsyncDisposableStack,
  signal: AbortSignal,
): Promise<BlockSource> {
  const name = marks.exportName(index);
  const bitmaps = [...tracking.frozen.values()];
  const options = { type: 'nbd', id: name, 'node-name': marks.node(index), name, writable: false, bitmaps };
  await qmp.run('block-export-add', options, signal);
  const address: NbdAddress = {
    transport: { kind: 'unix', path: nbdSocket },
    exportName: name,
    tls: false,
    serverName: 'localhost',
  };
  const contexts = bitmaps.map((bitmap) => `qemu:dirty-bitmap:${bitmap}`);
  const open = opening.use(await NbdDisk.open(address, { contexts: [baseAllocation] }, signal));
  // On a connection of their own: whoever asks for both has QEMU look up the allocation of the whole disk.
  const dirtyDisk = bitmaps.length === 0 ? open : opening.use(await NbdDisk.open(address, { contexts }, signal));
  return nbdBlockSource({
    label: disk.label,
    disk: open,
    dirtyDisk,
    referencePoint: new TextEncoder().encode(tracking.added),
    bitmapSince: (since) => tracking.frozenSince(since),
  });
}
