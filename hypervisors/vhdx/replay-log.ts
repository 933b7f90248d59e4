import { ImageCorrupt } from './image-errors.ts';
import { ascii, u64, viewOf } from './little-endian.ts';
import {
  activeEntries,
  descriptorBytes,
  entryHeaderBytes,
  firstDataSector,
  type LogEntry,
  sectorBytes,
} from './log-entries.ts';
import { Patches } from './patches.ts';
import type { RandomAccessFile } from './random-access-file.ts';
import type { VhdxHeader } from './vhdx-header.ts';

/** Sparse files can be of any size; 64 TiB of blocks and their tables fit in this many times. */
const fileBytesMax = 2 ** 48;

/** The file as it is once its log is replayed: in memory, for the file itself is never written. */
export async function withLogReplayed(
  file: RandomAccessFile,
  header: VhdxHeader,
  signal: AbortSignal,
): Promise<RandomAccessFile> {
  const entries = await activeEntries(file, header, signal);
  const lastBytes = entries.at(-1)?.lastFileBytes ?? 0;
  const sizeBytes = Math.max(file.sizeBytes, lastBytes);
  if (sizeBytes > fileBytesMax) throw new ImageCorrupt(`${file.path}: it would have ${sizeBytes} bytes`);
  if (entries.length === 0) return file;
  const patches = new Patches();
  for (const entry of entries) applyEntry(file, entry, patches);
  return patchedFile(file, sizeBytes, patches);
}

function applyEntry({ path, sizeBytes }: RandomAccessFile, entry: LogEntry, patches: Patches): void {
  if (entry.flushedFileBytes > sizeBytes)
    throw new ImageCorrupt(
      `${path} has ${sizeBytes} bytes, and had ${entry.flushedFileBytes} when its log was written: it was truncated`,
    );
  const { bytes } = entry;
  const view = viewOf(bytes);
  const count = view.getUint32(24, true);
  let sector = firstDataSector(count);
  for (let i = 0; i < count; i++) {
    const at = entryHeaderBytes + descriptorBytes * i;
    const start = u64(view, at + 16);
    if (ascii(bytes, at, 4) === 'zero') patches.add({ start, end: start + u64(view, at + 8), bytes: null });
    else {
      patches.add({ start, end: start + sectorBytes, bytes: sectorOf(bytes, at, sector) });
      sector += sectorBytes;
    }
  }
}

/** The first 8 and the last 4 bytes of a sector stand in its descriptor: their places mark the sector as whole. */
function sectorOf(entry: Uint8Array, descriptorAt: number, dataAt: number): Uint8Array {
  const sector = entry.slice(dataAt, dataAt + sectorBytes);
  sector.set(entry.subarray(descriptorAt + 8, descriptorAt + 16), 0);
  sector.set(entry.subarray(descriptorAt + 4, descriptorAt + 8), sectorBytes - 4);
  return sector;
}

function patchedFile(file: RandomAccessFile, sizeBytes: number, patches: Patches): RandomAccessFile {
  return {
    path: file.path,
    sizeBytes,
    identity: file.identity,
    async read(parts, signal) {
      const inside = parts.map(({ offset, into }) => ({
        offset,
        into: into.subarray(0, Math.max(0, file.sizeBytes - offset)),
      }));
      await file.read(
        inside.filter(({ into }) => into.length > 0),
        signal,
      );
      for (const { offset, into } of parts) {
        if (offset + into.length > sizeBytes) throw new RangeError(`read beyond the end of ${file.path}`);
        into.fill(0, Math.min(into.length, Math.max(0, file.sizeBytes - offset)));
        patches.applyTo(into, offset);
      }
    },
    directFd: (offset, length) =>
      offset + length > file.sizeBytes || patches.touches(offset, offset + length)
        ? null
        : file.directFd(offset, length),
    [Symbol.asyncDispose]: () => file[Symbol.asyncDispose](),
  };
}
