import { type BigIntStats, constants } from 'node:fs';
import { type FileHandle, open, stat } from 'node:fs/promises';
import { SourceNotFound } from '../errors.ts';
import type { BlockSource } from '../hypervisor.ts';
import { deviceCapacityBytes, deviceNumber, openDevice } from './block-device.ts';
import { type ChangeWatch, watchDevice, watchFile } from './change-watch.ts';
import { blockSourceOf } from './image-disk.ts';
import type { PathDisk } from './image-machine.ts';

export interface OpenDisk extends AsyncDisposable {
  readonly source: BlockSource;
  readonly watch: ChangeWatch;
  /** Path or URI, for messages. */
  readonly place: string;
  /** Equal for two paths that lead to the same bytes. */
  readonly identity: string;
}

/** Throws SourceNotFound, saying which disk and why, unless it is a non-empty file or block device that can be read. */
export async function openRaw(machine: string, disk: PathDisk, signal: AbortSignal): Promise<OpenDisk> {
  const found = await inspect(machine, disk);
  await using opening = new AsyncDisposableStack();
  const { handle, claimed } = await openFound(machine, disk, found);
  opening.use(handle);
  const stats = await handle.stat({ bigint: true });
  const capacityBytes = await capacityOf(machine, disk, stats);
  const watch = stats.isBlockDevice()
    ? await watchDevice(deviceNumber(stats.rdev), handle, claimed)
    : await watchFile(disk.path, stats, signal);
  const held = opening.move();
  return {
    source: blockSourceOf({ machine, ...disk, capacityBytes, handle }),
    watch,
    place: disk.path,
    identity: identityOf(stats),
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}

export async function measureRaw(machine: string, disk: PathDisk): Promise<number> {
  return capacityOf(machine, disk, await inspect(machine, disk));
}

/** Opens for reading without moving the access time, which only the owner and root may ask for. */
export async function openQuietly(path: string): Promise<FileHandle> {
  // Without O_NONBLOCK, opening a named pipe would hang until somebody writes to it.
  const flags = constants.O_RDONLY | constants.O_NONBLOCK;
  try {
    return await open(path, flags | (constants.O_NOATIME ?? 0));
  } catch (cause) {
    if (!(cause instanceof Error && 'code' in cause && cause.code === 'EPERM')) throw cause;
    return open(path, flags);
  }
}

export async function inspect(machine: string, disk: PathDisk): Promise<BigIntStats> {
  const found = await stat(disk.path, { bigint: true }).catch((cause: unknown) => {
    throw unusable(machine, disk, whyNot(cause), cause);
  });
  if (found.isFile() || found.isBlockDevice()) return found;
  throw unusable(machine, disk, `is ${kindOf(found)}: give the path of a raw image file or a block device`);
}

async function openFound(machine: string, disk: PathDisk, found: BigIntStats) {
  try {
    return found.isBlockDevice()
      ? await openDevice(disk.path)
      : { handle: await openQuietly(disk.path), claimed: false };
  } catch (cause) {
    throw unusable(machine, disk, whyNot(cause), cause);
  }
}

async function capacityOf(machine: string, disk: PathDisk, stats: BigIntStats): Promise<number> {
  const bytes = stats.isBlockDevice() ? await capacityOfDevice(machine, disk, stats) : Number(stats.size);
  if (bytes > 0) return bytes;
  throw unusable(machine, disk, 'is empty (0 bytes): check that it is the right path and that the device is set up');
}

async function capacityOfDevice(machine: string, disk: PathDisk, stats: BigIntStats): Promise<number> {
  return deviceCapacityBytes(deviceNumber(stats.rdev)).catch((cause: unknown) => {
    throw unusable(machine, disk, 'is a block device without a size in /sys: failkit reads those on Linux only', cause);
  });
}

export function identityOf(stats: BigIntStats): string {
  return stats.isBlockDevice() ? `device ${deviceNumber(stats.rdev)}` : `file ${stats.dev}/${stats.ino}`;
}

function unusable(machine: string, disk: PathDisk, why: string, cause?: unknown): SourceNotFound {
  return new SourceNotFound(`disk ${disk.label} of machine ${machine}: ${disk.path} ${why}`, { cause });
}

/** The rest of a sentence that starts with a path. */
export function whyNot(cause: unknown): string {
  const code = cause instanceof Error && 'code' in cause ? String(cause.code) : 'unknown error';
  if (code === 'ENOENT' || code === 'ENOTDIR') return 'does not exist: check the path';
  if (code === 'EACCES' || code === 'EPERM')
    return 'may not be read by this user: give it read permission, or run as its owner';
  return `can't be opened (${code}): check the path and the system log`;
}

function kindOf(stats: BigIntStats): string {
  if (stats.isDirectory()) return 'a directory';
  if (stats.isCharacterDevice()) return 'a character device';
  if (stats.isFIFO()) return 'a named pipe';
  return 'not a file';
}
