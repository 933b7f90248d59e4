import type { FilePages, PageCache } from './file-pages.ts';
import { pageBytes } from './file-pages.ts';
import { ImageCorrupt, ImageUnsupported } from './image-errors.ts';
import type { ImageLayer, LayerRun } from './image-layer.ts';
import { ascii, viewOf } from './little-endian.ts';
import { type RandomAccessFile, readBytes } from './random-access-file.ts';
import { bitRun } from './sector-bitmap.ts';
import { parentOf } from './vhd-parent.ts';

/** VHD, the older format (Virtual Hard Disk Image Format Specification 1.0): fixed, dynamic, differencing. Numbers are big-endian. */

const sectorBytes = 512;
const footerBytes = 512;
const headerBytes = 1024;
const unusedBlock = 0xffffffff;
/** 2040 GiB in blocks of 512 KiB, and some. Larger tables are nobody's. */
const blocksMax = 2 ** 23;
const diskTypes = { fixed: 2, dynamic: 3, differencing: 4 } as const;

interface Footer {
  readonly type: number;
  readonly capacityBytes: number;
  readonly headerOffset: number;
  readonly identifier: string;
}

export async function openVhdLayer(file: RandomAccessFile, cache: PageCache, signal: AbortSignal): Promise<ImageLayer> {
  const footer = await readFooter(file, signal);
  const { capacityBytes, identifier } = footer;
  const layer = {
    file,
    capacityBytes,
    sectorBytes,
    diskIdentity: null,
    identifiers: new Set([identifier]),
    parent: null,
  };
  if (footer.type === diskTypes.fixed) {
    if (capacityBytes > file.sizeBytes - footerBytes)
      throw new ImageCorrupt(`${file.path} holds fewer than the ${capacityBytes} bytes of its disk: it was truncated`);
    return { ...layer, runAt: async (offset, end) => ({ length: end - offset, kind: 'data', at: offset }) };
  }
  const header = await readDynamicHeader(file, footer, signal);
  const blocks = new VhdBlocks(file.path, cache.of(file), header, footer.type === diskTypes.differencing);
  await blocks.check(file, capacityBytes, signal);
  const parent = footer.type === diskTypes.differencing ? await parentOf(file, header.bytes, signal) : null;
  return { ...layer, parent, runAt: (offset, end, runSignal) => blocks.runAt(offset, end, runSignal) };
}

/** The footer stands at the end; that of a growing disk has a copy at the start, for whoever was interrupted while it grew. */
async function readFooter(file: RandomAccessFile, signal: AbortSignal): Promise<Footer> {
  const places = file.sizeBytes < footerBytes ? [] : [file.sizeBytes - footerBytes, 0];
  for (const place of places) {
    const bytes = await readBytes(file, place, footerBytes, signal);
    if (ascii(bytes, 0, 8) !== 'conectix' || !sumsUp(bytes, 64)) continue;
    return parseFooter(file, bytes);
  }
  throw new ImageCorrupt(`${file.path} is no VHD image: it has no whole footer`);
}

function parseFooter({ path }: RandomAccessFile, bytes: Uint8Array): Footer {
  const view = viewOf(bytes);
  const type = view.getUint32(60);
  const isKnown = type === diskTypes.fixed || type === diskTypes.dynamic || type === diskTypes.differencing;
  if (!isKnown || view.getUint16(12) !== 1)
    throw new ImageUnsupported(`${path}: VHD of type ${type}, version ${view.getUint16(12)}, is not read here`);
  const capacityBytes = Number(view.getBigUint64(48));
  if (capacityBytes === 0 || capacityBytes % sectorBytes !== 0 || !Number.isSafeInteger(capacityBytes))
    throw new ImageCorrupt(`${path}: its disk has ${capacityBytes} bytes`);
  const headerOffset = Number(view.getBigUint64(16));
  return { type, capacityBytes, headerOffset, identifier: Buffer.from(bytes.subarray(68, 84)).toString('hex') };
}

interface DynamicHeader {
  readonly bytes: Uint8Array;
  readonly tableOffset: number;
  readonly blocks: number;
  readonly blockBytes: number;
}

async function readDynamicHeader(
  file: RandomAccessFile,
  { headerOffset, capacityBytes }: Footer,
  signal: AbortSignal,
): Promise<DynamicHeader> {
  const broken = (what: string) => new ImageCorrupt(`${file.path}: its dynamic header ${what}`);
  if (headerOffset + headerBytes > file.sizeBytes) throw broken('is not inside the file');
  const bytes = await readBytes(file, headerOffset, headerBytes, signal);
  if (ascii(bytes, 0, 8) !== 'cxsparse' || !sumsUp(bytes, 36)) throw broken('is not whole');
  const view = viewOf(bytes);
  const [tableOffset, blocks, blockBytes] = [Number(view.getBigUint64(16)), view.getUint32(28), view.getUint32(32)];
  const isPower = blockBytes >= sectorBytes * 8 && (blockBytes & (blockBytes - 1)) === 0;
  if (!isPower || blocks * blockBytes < capacityBytes) throw broken(`has ${blocks} blocks of ${blockBytes} bytes`);
  if (tableOffset % sectorBytes !== 0 || tableOffset + blocks * 4 > file.sizeBytes)
    throw broken('has a block table that is not inside the file');
  if (blocks > blocksMax)
    throw new ImageUnsupported(`${file.path}: a block table of ${blocks} entries is not read here`);
  return { bytes, tableOffset, blocks, blockBytes };
}

/** The complement of the sum of all bytes but the four of the checksum itself. */
function sumsUp(bytes: Uint8Array, checksumAt: number): boolean {
  const sum = bytes.reduce((total, byte, i) => (i >= checksumAt && i < checksumAt + 4 ? total : total + byte), 0);
  return viewOf(bytes).getUint32(checksumAt) === ~sum >>> 0;
}

/** A block's sectors stand behind a bitmap of those that were ever written. */
class VhdBlocks {
  readonly #path: string;
  readonly #pages: FilePages;
  readonly #header: DynamicHeader;
  readonly #absent: 'zero' | 'parent';
  readonly #bitmapBytes: number;

  constructor(path: string, pages: FilePages, header: DynamicHeader, hasParent: boolean) {
    this.#path = path;
    this.#pages = pages;
    this.#header = header;
    this.#absent = hasParent ? 'parent' : 'zero';
    this.#bitmapBytes = Math.ceil(header.blockBytes / sectorBytes / 8 / sectorBytes) * sectorBytes;
  }

  async runAt(offset: number, end: number, signal: AbortSignal): Promise<LayerRun> {
    signal.throwIfAborted();
    const { blockBytes } = this.#header;
    const block = Math.floor(offset / blockBytes);
    const place = await this.#placeOf(block, signal);
    if (place === null)
      return { length: (await this.#absentUntil(block, end, signal)) - offset, kind: this.#absent, at: 0 };
    const blockStart = block * blockBytes;
    const wantedEnd = Math.min(end, blockStart + blockBytes);
    const bitmap = { pages: this.#pages, order: 'highest-first' as const, fileOffset: place };
    const firstBit = Math.floor((offset - blockStart) / sectorBytes);
    const run = await bitRun(bitmap, firstBit, Math.ceil((wantedEnd - blockStart) / sectorBytes), signal);
    const length = Math.min(wantedEnd, blockStart + run.end * sectorBytes) - offset;
    return { length, kind: run.set ? 'data' : this.#absent, at: place + this.#bitmapBytes + (offset - blockStart) };
  }

  /** No block leaves the file, and no two share their place. */
  async check(file: RandomAccessFile, capacityBytes: number, signal: AbortSignal): Promise<void> {
    const { blockBytes, tableOffset } = this.#header;
    const blocks = Math.ceil(capacityBytes / blockBytes);
    const places = new Float64Array(blocks);
    let count = 0;
    for (let block = 0; block < blocks; block++) {
      const place = await this.#placeOf(block, signal);
      if (place !== null) places[count++] = place;
    }
    const sorted = places.subarray(0, count).sort();
    const length = this.#bitmapBytes + blockBytes;
    sorted.forEach((place, i) => {
      const previous = sorted[i - 1];
      if (previous !== undefined && previous + length > place)
        throw new ImageCorrupt(`${this.#path}: two of its blocks lie at the same place, ${place}`);
      const crossesTable = place < tableOffset + blocks * 4 && place + length > tableOffset;
      if (crossesTable || place < footerBytes)
        throw new ImageCorrupt(`${this.#path}: its block at ${place} lies on its tables`);
      if (place + length > file.sizeBytes)
        throw new ImageCorrupt(
          `${this.#path} ends at ${file.sizeBytes}, inside its block at ${place}: it was truncated`,
        );
    });
  }

  async #absentUntil(block: number, end: number, signal: AbortSignal): Promise<number> {
    const { blockBytes } = this.#header;
    let next = block + 1;
    while (next * blockBytes < end && (await this.#placeOf(next, signal)) === null) next++;
    return Math.min(end, next * blockBytes);
  }

  async #placeOf(block: number, signal: AbortSignal): Promise<number | null> {
    const position = this.#header.tableOffset + block * 4;
    const page = await this.#pages.page(Math.floor(position / pageBytes), signal);
    const sector = viewOf(page).getUint32(position % pageBytes);
    return sector === unusedBlock ? null : sector * sectorBytes;
  }
}
