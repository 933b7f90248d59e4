import { readImageInfo } from './image-info.ts';
import type { ImageDisk } from './image-machine.ts';
import { isChained, measureChained, openChainedDisk } from './open-chained-disk.ts';
import { inspect, measureRaw, type OpenDisk, openRaw } from './open-raw-disk.ts';
import { openExport, openImage } from './open-served-disk.ts';

/** A disk by what it is: raw bytes, VHDX and VHD are read here, other image formats by qemu-nbd, exports from whoever serves them. */
export async function openDisk(machine: string, disk: ImageDisk, signal: AbortSignal): Promise<OpenDisk> {
  if ('nbd' in disk) return await openExport(disk, signal);
  const format = disk.format ?? 'raw';
  if (format === 'raw') return await openRaw(machine, disk, signal);
  if (isChained(format)) return await openChainedDisk(machine, disk, signal);
  return await openImage(machine, disk, format, signal);
}

export async function measureDisk(machine: string, disk: ImageDisk, signal: AbortSignal): Promise<number> {
  if ('nbd' in disk) {
    await using open = await openExport(disk, signal);
    return open.source.capacityBytes;
  }
  const format = disk.format ?? 'raw';
  if (format === 'raw') return await measureRaw(machine, disk);
  if (isChained(format)) return await measureChained(machine, disk, signal);
  await inspect(machine, disk);
  return (await readImageInfo(disk.path, format, signal)).capacityBytes;
}
