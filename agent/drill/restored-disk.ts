import { chmod, open, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { BackingDisk, DrillDisk } from '../../drill/drill.ts';
import { toHex } from '../../replica/encoding.ts';
import type { DiskState } from '../../replica/manifest.ts';
import { type RestoreTools, restoreDisk } from '../../restore/restore-disk.ts';
import { OutputUnusable, openRawSink } from '../../restore/sinks/raw-sink.ts';

/** A disk of a recovery point for a drill, restored into the drill's own folder and read-only from then on. */
export function restoredDisk(disk: DiskState, tools: Omit<RestoreTools, 'progress'>): DrillDisk {
  return {
    label: disk.label,
    capacityBytes: disk.capacityBytes,
    open: (folder, signal) => openRestored(disk, tools, folder, signal),
  };
}

async function openRestored(
  disk: DiskState,
  tools: Omit<RestoreTools, 'progress'>,
  folder: string,
  signal: AbortSignal,
): Promise<BackingDisk> {
  const path = join(folder, `${toHex(disk.diskId)}.raw`);
  const progress = { capacityBytes: 0, fetchedBytes: 0, writtenBytes: 0, keptBytes: 0 };
  {
    const { capacityBytes } = disk;
    await using sink = await openRawSink({ path, capacityBytes, force: false, contentName: 'drill' });
    await restoreDisk(disk, sink, { ...tools, progress }, signal);
    await sink.complete(signal);
  }
  await chmod(path, 0o400);
  const file = await open(path, 'r');
  const before = await signatureOf(path);
  return {
    place: path,
    fetchedBytes: progress.fetchedBytes,
    async read(offset, into) {
      const { bytesRead } = await file.read(into, 0, into.length, offset);
      if (bytesRead !== into.length) throw new OutputUnusable(`${path} ends before ${offset + into.length}`);
    },
    async findings() {
      if ((await signatureOf(path)) === before) return [];
      return [{ code: 'SOURCE_WRITTEN', what: `disk ${disk.label}, restored for the drill, was written to` }];
    },
    [Symbol.asyncDispose]: () => file.close(),
  };
}

/** The kernel moves the change time with every write, and lets nobody set it. */
async function signatureOf(path: string): Promise<string> {
  const { ino, size, mtimeNs, ctimeNs, blocks } = await stat(path, { bigint: true });
  return [ino, size, mtimeNs, ctimeNs, blocks].join(' ');
}
