import { crc32cWithout } from './crc32c.ts';
import { ImageCorrupt, ImageUnsupported } from './image-errors.ts';
import { ascii, guidAt, mebibyte, u64, viewOf } from './little-endian.ts';
import { type RandomAccessFile, readBytes } from './random-access-file.ts';
import type { VhdxHeader } from './vhdx-header.ts';

/** The log's entries, and which of them are to be replayed (MS-VHDX 2.3). */

export const sectorBytes = 4096;
export const entryHeaderBytes = 64;
export const descriptorBytes = 32;
/** Windows makes logs of 1 MiB. What is to be replayed is held in memory. */
const logBytesMax = 64 * mebibyte;
/** Entries that begin rightly and are torn are rare; a log full of them would be summed for hours. */
const summedLogsMax = 8;

/** One whole entry: its bytes without a break, however it lies in the ring. */
export interface LogEntry {
  readonly at: number;
  readonly sequence: bigint;
  readonly tail: number;
  readonly bytes: Uint8Array;
  /** So much of the file was durable when the entry was written. */
  readonly flushedFileBytes: number;
  /** The file has at least so many bytes once the entry is applied. */
  readonly lastFileBytes: number;
}

interface Ring {
  readonly log: Uint8Array;
  readonly guid: string;
  readonly entries: Map<number, LogEntry | null>;
  readonly path: string;
  summedBytes: number;
}

/** Ascending. Throws ImageCorrupt where the header says that there is something to replay, and nothing whole is found. */
export async function activeEntries(
  file: RandomAccessFile,
  { logGuid, logOffset, logLength }: VhdxHeader,
  signal: AbortSignal,
): Promise<readonly LogEntry[]> {
  if (logGuid === null) return [];
  if (logLength > logBytesMax)
    throw new ImageUnsupported(
      `${file.path} was not closed in order, and its log of ${logLength} bytes is too long to be replayed here: attach it once where it was written`,
    );
  const log = await readBytes(file, logOffset, logLength, signal);
  const ring: Ring = { log, guid: logGuid, entries: new Map(), path: file.path, summedBytes: 0 };
  const active = newestSequence(ring, signal);
  if (active.length === 0)
    throw new ImageCorrupt(`${file.path} was not closed in order, and its log holds no whole sequence to replay`);
  return active;
}

/** Every place may be a sequence's tail; the one whose last entry is newest is the active one. */
function newestSequence(ring: Ring, signal: AbortSignal): readonly LogEntry[] {
  let newest: readonly LogEntry[] = [];
  for (let tail = 0; ; ) {
    signal.throwIfAborted();
    const { entries, head } = sequenceAt(ring, tail);
    const valid = fromTail(entries);
    if (valid.length > 0 && sequenceOf(valid) > sequenceOf(newest)) newest = valid;
    const next = valid.length > 0 ? head : (tail + sectorBytes) % ring.log.length;
    if (next <= tail) return newest;
    tail = next;
  }
}

function sequenceAt(ring: Ring, tail: number): { readonly entries: readonly LogEntry[]; readonly head: number } {
  const entries: LogEntry[] = [];
  let taken = 0;
  for (let head = tail; ; ) {
    const entry = entryAt(ring, head);
    const last = entries.at(-1);
    const follows = entry !== null && (last === undefined || entry.sequence === last.sequence + 1n);
    taken += entry?.bytes.length ?? 0;
    if (!follows || taken > ring.log.length) return { entries, head };
    entries.push(entry);
    head = (head + entry.bytes.length) % ring.log.length;
  }
}

/** A sequence is valid when its last entry's tail is one of its entries: it is replayed from there on. */
function fromTail(entries: readonly LogEntry[]): readonly LogEntry[] {
  const tail = entries.at(-1)?.tail;
  const start = entries.findIndex(({ at }) => at === tail);
  return start < 0 ? [] : entries.slice(start);
}

function sequenceOf(entries: readonly LogEntry[]): bigint {
  return entries.at(-1)?.sequence ?? 0n;
}

function entryAt(ring: Ring, at: number): LogEntry | null {
  const known = ring.entries.get(at);
  if (known !== undefined) return known;
  const entry = parseEntry(ring, at);
  ring.entries.set(at, entry);
  return entry;
}

function parseEntry(ring: Ring, at: number): LogEntry | null {
  const header = ring.log.subarray(at, at + entryHeaderBytes);
  const view = viewOf(header);
  if (ascii(header, 0, 4) !== 'loge' || guidAt(header, 32) !== ring.guid) return null;
  const [length, tail, sequence] = [view.getUint32(8, true), view.getUint32(12, true), view.getBigUint64(16, true)];
  const sound = length > 0 && length % sectorBytes === 0 && length <= ring.log.length && tail % sectorBytes === 0;
  if (!sound || tail >= ring.log.length || sequence === 0n) return null;
  const bytes = takeFrom(ring.log, at, length);
  countSum(ring, length);
  if (view.getUint32(4, true) !== crc32cWithout(bytes, 4) || !isWhole(bytes, view.getUint32(24, true), sequence))
    return null;
  return { at, sequence, tail, bytes, flushedFileBytes: u64(view, 48), lastFileBytes: u64(view, 56) };
}

function countSum(ring: Ring, length: number): void {
  ring.summedBytes += length;
  if (ring.summedBytes > summedLogsMax * ring.log.length)
    throw new ImageCorrupt(`${ring.path}: its log is full of torn entries`);
}

/** The log is a ring: an entry may go on at its start. */
function takeFrom(log: Uint8Array, at: number, length: number): Uint8Array {
  if (at + length <= log.length) return log.subarray(at, at + length);
  const bytes = new Uint8Array(length);
  bytes.set(log.subarray(at));
  bytes.set(log.subarray(0, at + length - log.length), log.length - at);
  return bytes;
}

/** Each descriptor and each sector of data says to which entry it belongs, and none is missing or left over. */
function isWhole(bytes: Uint8Array, count: number, sequence: bigint): boolean {
  const firstSector = firstDataSector(count);
  if (firstSector > bytes.length) return false;
  const view = viewOf(bytes);
  let sectors = 0;
  for (let i = 0; i < count; i++) {
    const at = entryHeaderBytes + descriptorBytes * i;
    const kind = ascii(bytes, at, 4);
    if ((kind !== 'desc' && kind !== 'zero') || view.getBigUint64(at + 24, true) !== sequence) return false;
    if (u64(view, at + 16) % sectorBytes !== 0) return false;
    if (kind === 'zero' && u64(view, at + 8) % sectorBytes !== 0) return false;
    if (kind === 'desc') sectors++;
  }
  if (firstSector + sectors * sectorBytes !== bytes.length) return false;
  const [high, low] = [Number(sequence >> 32n), Number(sequence & 0xffffffffn)];
  for (let at = firstSector; at < bytes.length; at += sectorBytes) {
    const belongs = view.getUint32(at + 4, true) === high && view.getUint32(at + sectorBytes - 4, true) === low;
    if (ascii(bytes, at, 4) !== 'data' || !belongs) return false;
  }
  return true;
}

/** Header and descriptors fill whole sectors; those of data stand behind them, in the order of their descriptors. */
export function firstDataSector(descriptorCount: number): number {
  return Math.ceil((entryHeaderBytes + descriptorBytes * descriptorCount) / sectorBytes) * sectorBytes;
}
