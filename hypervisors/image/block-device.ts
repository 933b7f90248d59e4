import { constants } from 'node:fs';
import { type FileHandle, open, readFile } from 'node:fs/promises';

/** Linux counts in sectors of 512 bytes here, whatever the device's own sector size. */
const sectorBytes = 512;
/** Columns of /sys/dev/block/M:m/stat (kernel: Documentation/block/stat.rst). */
const sectorsWrittenColumn = 6;
const sectorsDiscardedColumn = 13;

/** `major:minor` as sysfs and mountinfo write it, from the `rdev` of a stat. */
export function deviceNumber(rdev: bigint): string {
  const major = ((rdev >> 8n) & 0xfffn) | ((rdev >> 32n) & ~0xfffn);
  const minor = (rdev & 0xffn) | ((rdev >> 12n) & ~0xffn);
  return `${major}:${minor}`;
}

export async function deviceCapacityBytes(device: string): Promise<number> {
  return Number(await readSysfs(device, 'size')) * sectorBytes;
}

/**
 * Opens with O_EXCL, which on a block device claims it: nobody can mount it or build on it meanwhile, and the kernel
 * refuses when somebody has. `claimed` says which; a process that only has it open is not seen by this.
 */
export async function openDevice(path: string): Promise<{ readonly handle: FileHandle; readonly claimed: boolean }> {
  const flags = constants.O_RDONLY | constants.O_NONBLOCK;
  try {
    return { handle: await open(path, flags | constants.O_EXCL), claimed: true };
  } catch (cause) {
    if (!(cause instanceof Error && 'code' in cause && cause.code === 'EBUSY')) throw cause;
    return { handle: await open(path, flags), claimed: false };
  }
}

/** A device in use can't change when it is read-only, or when all its mounts are. */
export async function isWriteProtected(device: string): Promise<boolean> {
  if ((await readSysfs(device, 'ro')) === '1') return true;
  const mounts = (await readFile('/proc/self/mountinfo', 'utf8')).split('\n').filter((line) => isMountOf(line, device));
  return mounts.length > 0 && mounts.every(isReadOnlyMount);
}

/**
 * What was written and discarded so far, as one comparable text; null where the kernel keeps no counters.
 * Writes that wait in the page cache are flushed first, or they would be counted too late to be noticed.
 */
export async function writeCounters(device: string, handle: FileHandle): Promise<string | null> {
  await handle.datasync();
  if (!(await keepsCounters(device))) return null;
  const columns = (await readSysfs(device, 'stat')).split(/\s+/);
  // The number of writes is of no use: it counts flushes too, and so our own datasync.
  return `${columns[sectorsWrittenColumn]} sectors written, ${columns[sectorsDiscardedColumn] ?? 0} discarded`;
}

async function keepsCounters(device: string): Promise<boolean> {
  for (const queue of ['queue/iostats', '../queue/iostats']) {
    const setting = await readSysfs(device, queue).catch(() => null);
    if (setting !== null) return setting !== '0';
  }
  return false;
}

async function readSysfs(device: string, name: string): Promise<string> {
  return (await readFile(`/sys/dev/block/${device}/${name}`, 'utf8')).trim();
}

function isMountOf(line: string, device: string): boolean {
  return line.split(' ')[2] === device;
}

/** The file system's own options stand last, behind ` - type source`; a bind mount alone may say `ro` and mean nothing. */
function isReadOnlyMount(line: string): boolean {
  const options = line.split(' ').at(-1) ?? '';
  return options.split(',').includes('ro');
}
