import { ImageCorrupt, ImageUnsupported } from './image-errors.ts';
import { ascii, guidAt, mebibyte, u64, viewOf } from './little-endian.ts';
import { type ParentLocator, parseParentLocator } from './parent-locator.ts';
import { type RandomAccessFile, readBytes } from './random-access-file.ts';
import type { Region } from './region-table.ts';

/** What the disk is (MS-VHDX 2.6). */

export const metadataTableBytes = 64 * 1024;
export const metadataIds = {
  fileParameters: 'caa16737-fa36-4d43-b3b6-33f0aa44e76b',
  diskSize: '2fa54224-cd1b-4876-b211-5dbed83bf4b8',
  page83: 'beca12ab-b2e6-4523-93ef-c309e000c746',
  logicalSector: '8141bf1d-a96f-4709-ba47-f233a8faab5f',
  physicalSector: 'cda348c7-445d-4471-9cc9-e9885251c556',
  parentLocator: 'a8d35f2d-b30b-454d-abf7-d3d84834ab0c',
} as const;
const itemsMax = 1023;
const itemBytesMax = mebibyte;
const capacityBytesMax = 64 * 2 ** 40;
const blockBytesMax = 256 * mebibyte;
const flags = { isUser: 1, isRequired: 4 } as const;

export interface Metadata {
  readonly blockBytes: number;
  readonly capacityBytes: number;
  readonly sectorBytes: 512 | 4096;
  /** Who the disk is, whatever its files are called (page 83 data). */
  readonly identity: string;
  /** Null: the image stands for itself. */
  readonly parent: ParentLocator | null;
}

interface Item {
  readonly offset: number;
  readonly length: number;
}

export async function readMetadata(file: RandomAccessFile, region: Region, signal: AbortSignal): Promise<Metadata> {
  const items = parseTable(file, region, await readBytes(file, region.offset, metadataTableBytes, signal));
  const read = async (id: string, length: number | null, what: string): Promise<Uint8Array> => {
    const item = items.get(id);
    if (item === undefined) throw new ImageCorrupt(`${file.path}: its metadata lacks the ${what}`);
    if (length !== null && item.length < length) throw new ImageCorrupt(`${file.path}: its ${what} is cut short`);
    return await readBytes(file, region.offset + item.offset, length ?? item.length, signal);
  };
  const number = async (id: string, what: string): Promise<number> =>
    viewOf(await read(id, 4, what)).getUint32(0, true);
  const parameters = viewOf(await read(metadataIds.fileParameters, 8, 'file parameters'));
  const [blockBytes, parameterFlags] = [parameters.getUint32(0, true), parameters.getUint32(4, true)];
  const sectorBytes = await number(metadataIds.logicalSector, 'logical sector size');
  const physical = await number(metadataIds.physicalSector, 'physical sector size');
  const capacityBytes = u64(viewOf(await read(metadataIds.diskSize, 8, 'disk size')), 0);
  if (!isSectorSize(sectorBytes) || !isSectorSize(physical))
    throw new ImageCorrupt(`${file.path}: it has sectors of ${sectorBytes} and ${physical} bytes`);
  checkSizes(file, { blockBytes, capacityBytes, sectorBytes });
  // Bit 0 only says that the blocks of a fixed disk stay where they are.
  if (parameterFlags > 3) throw new ImageCorrupt(`${file.path}: its file parameters have unknown flags`);
  const locator = (parameterFlags & 2) === 0 ? null : await read(metadataIds.parentLocator, null, 'parent locator');
  const parent = locator === null ? null : parseParentLocator(file.path, locator);
  const identity = guidAt(await read(metadataIds.page83, 16, 'virtual disk id'), 0);
  return { blockBytes, capacityBytes, sectorBytes, identity, parent };
}

function isSectorSize(bytes: number): bytes is 512 | 4096 {
  return bytes === 512 || bytes === 4096;
}

function checkSizes(
  { path }: RandomAccessFile,
  { blockBytes, capacityBytes, sectorBytes }: Omit<Metadata, 'parent' | 'identity'>,
): void {
  const isPower = blockBytes > 0 && (blockBytes & (blockBytes - 1)) === 0;
  if (!isPower || blockBytes < mebibyte || blockBytes > blockBytesMax)
    throw new ImageCorrupt(`${path}: it has blocks of ${blockBytes} bytes`);
  if (capacityBytes === 0 || capacityBytes > capacityBytesMax || capacityBytes % sectorBytes !== 0)
    throw new ImageCorrupt(`${path}: its disk has ${capacityBytes} bytes, in sectors of ${sectorBytes}`);
}

/** Items of the system by their id; those of users are not for us. */
function parseTable({ path }: RandomAccessFile, region: Region, bytes: Uint8Array): ReadonlyMap<string, Item> {
  const view = viewOf(bytes);
  const count = view.getUint16(10, true);
  if (ascii(bytes, 0, 8) !== 'metadata' || count > itemsMax)
    throw new ImageCorrupt(`${path}: its metadata table is none`);
  const known = new Set<string>(Object.values(metadataIds));
  const items = new Map<string, Item>();
  for (let i = 0; i < count; i++) {
    const at = 32 + 32 * i;
    const id = guidAt(bytes, at);
    const [offset, length, itemFlags] = [16, 20, 24].map((field) => view.getUint32(at + field, true));
    const isUser = ((itemFlags ?? 0) & flags.isUser) !== 0;
    if (((itemFlags ?? 0) & flags.isRequired) !== 0 && (isUser || !known.has(id)))
      throw new ImageUnsupported(`${path} can't be read without its metadata ${id}, which are not known here`);
    if (isUser || !known.has(id)) continue;
    if (items.has(id)) throw new ImageCorrupt(`${path}: its metadata ${id} are listed twice`);
    items.set(id, checkItem(path, region, { offset: offset ?? 0, length: length ?? 0 }));
  }
  return items;
}

function checkItem(path: string, region: Region, item: Item): Item {
  const { offset, length } = item;
  if (offset < metadataTableBytes || length === 0 || length > itemBytesMax || offset + length > region.length)
    throw new ImageCorrupt(`${path}: its metadata of ${length} bytes at ${offset} are not inside their region`);
  return item;
}
