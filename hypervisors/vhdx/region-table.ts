import { crc32cWithout } from './crc32c.ts';
import { ImageCorrupt, ImageUnsupported } from './image-errors.ts';
import { ascii, guidAt, mebibyte, u64, viewOf } from './little-endian.ts';
import { type RandomAccessFile, readBytes } from './random-access-file.ts';
import { headerSectionBytes, type VhdxHeader } from './vhdx-header.ts';

/** Where block table and metadata lie (MS-VHDX 2.2.3). There are two copies. */

export const regionTableOffsets = [192 * 1024, 256 * 1024] as const;
export const regionTableBytes = 64 * 1024;
export const regionIds = {
  blockTable: '2dc27766-f623-4200-9d64-115e9bfd4a08',
  metadata: '8b7ca206-4790-4b9a-b8fe-575f050f886e',
} as const;
const regionsMax = 2047;

export interface Region {
  readonly offset: number;
  readonly length: number;
}

export interface Regions {
  readonly blockTable: Region;
  readonly metadata: Region;
  /** Of these and all others, the log included: no block may lie there. */
  readonly all: readonly Region[];
}

export async function readRegions(file: RandomAccessFile, header: VhdxHeader, signal: AbortSignal): Promise<Regions> {
  const bytes = await wholeTable(file, signal);
  const view = viewOf(bytes);
  const count = view.getUint32(8, true);
  if (count > regionsMax) throw new ImageCorrupt(`${file.path}: its region table has ${count} entries`);
  const found = new Map<string, Region>();
  for (let i = 0; i < count; i++) {
    const at = 16 + 32 * i;
    const id = guidAt(bytes, at);
    const known = id === regionIds.blockTable || id === regionIds.metadata;
    if (!known && (view.getUint32(at + 28, true) & 1) === 1)
      throw new ImageUnsupported(`${file.path} can't be read without its region ${id}, which is not known here`);
    if (found.has(id)) throw new ImageCorrupt(`${file.path}: its region ${id} is listed twice`);
    found.set(id, { offset: u64(view, at + 16), length: view.getUint32(at + 24, true) });
  }
  const [blockTable, metadata] = [found.get(regionIds.blockTable), found.get(regionIds.metadata)];
  if (blockTable === undefined || metadata === undefined)
    throw new ImageCorrupt(`${file.path}: its region table lacks the block table or the metadata`);
  const log = header.logLength === 0 ? [] : [{ offset: header.logOffset, length: header.logLength }];
  const all = [{ offset: 0, length: headerSectionBytes }, ...log, ...found.values()];
  checkRegions(file, all);
  return { blockTable, metadata, all };
}

async function wholeTable(file: RandomAccessFile, signal: AbortSignal): Promise<Uint8Array> {
  const whole: Uint8Array[] = [];
  for (const offset of regionTableOffsets) {
    const bytes = await readBytes(file, offset, regionTableBytes, signal);
    const isWhole = ascii(bytes, 0, 4) === 'regi' && viewOf(bytes).getUint32(4, true) === crc32cWithout(bytes, 4);
    if (isWhole) whole.push(bytes);
  }
  const [first, second] = whole;
  if (first === undefined) throw new ImageCorrupt(`${file.path}: neither of its region tables is whole`);
  if (second !== undefined && Buffer.compare(first, second) !== 0)
    throw new ImageCorrupt(`${file.path}: its region tables are whole, and differ`);
  return first;
}

function checkRegions({ path, sizeBytes }: RandomAccessFile, regions: readonly Region[]): void {
  const sorted = regions.toSorted((a, b) => a.offset - b.offset);
  let end = 0;
  for (const { offset, length } of sorted) {
    if (offset % mebibyte !== 0 || length % mebibyte !== 0 || length === 0)
      throw new ImageCorrupt(`${path}: its region of ${length} bytes at ${offset} is not in whole MiB`);
    if (offset < end) throw new ImageCorrupt(`${path}: two of its regions overlap at ${offset}`);
    end = offset + length;
    if (end > sizeBytes)
      throw new ImageCorrupt(
        `${path} ends at ${sizeBytes}, inside its region that reaches to ${end}: it was truncated`,
      );
  }
}
