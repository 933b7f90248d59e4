import { type FilePages, pageBytes } from './file-pages.ts';
import { ImageCorrupt } from './image-errors.ts';
import { mebibyte, viewOf } from './little-endian.ts';
import type { Metadata } from './metadata.ts';
import type { RandomAccessFile } from './random-access-file.ts';
import type { Regions } from './region-table.ts';

/** The block allocation table (MS-VHDX 2.5): an entry a block, and after those of each chunk one for its sector bitmap. */

export const blockState = { notPresent: 0, undefined: 1, zero: 2, unmapped: 3, present: 6, partial: 7 } as const;
export const entryBytes = 8;
const entriesAPage = pageBytes / entryBytes;
const bitmapBlockBytes = mebibyte;

/** State and place in one number: `place in MiB * 8 + state`. */
export type BlockEntry = number;

export function stateOf(entry: BlockEntry): number {
  return entry % 8;
}

export function placeOf(entry: BlockEntry): number {
  return Math.floor(entry / 8) * mebibyte;
}

export interface BlockTableShape {
  readonly blocks: number;
  /** Blocks for which one sector bitmap tells. */
  readonly chunkBlocks: number;
  readonly entries: number;
}

export function blockTableShape({ blockBytes, capacityBytes, sectorBytes, parent }: Metadata): BlockTableShape {
  const chunkBlocks = (2 ** 23 * sectorBytes) / blockBytes;
  const blocks = Math.ceil(capacityBytes / blockBytes);
  const chunks = Math.ceil(blocks / chunkBlocks);
  const entries = parent !== null ? chunks * (chunkBlocks + 1) : blocks + Math.floor((blocks - 1) / chunkBlocks);
  return { blocks, chunkBlocks, entries };
}

export class VhdxBlockTable {
  readonly #pages: FilePages;
  readonly #offset: number;
  readonly #chunkBlocks: number;
  readonly #path: string;

  constructor(path: string, pages: FilePages, offset: number, { chunkBlocks }: BlockTableShape) {
    this.#path = path;
    this.#pages = pages;
    this.#offset = offset;
    this.#chunkBlocks = chunkBlocks;
  }

  /** A piece of the table that holds the block's entry, and as many after it as there are. */
  async from(block: number, signal: AbortSignal): Promise<{ readonly entry: (block: number) => BlockEntry | null }> {
    const first = this.#indexOf(block);
    const number = Math.floor((this.#offset + first * entryBytes) / pageBytes);
    const view = viewOf(await this.#pages.page(number, signal));
    const pageStart = number * pageBytes - this.#offset;
    return {
      entry: (wanted) => {
        const at = this.#indexOf(wanted) * entryBytes - pageStart;
        return at + entryBytes > view.byteLength ? null : readEntry(view, at, this.#path);
      },
    };
  }

  /** Where the bitmap for the block lies. */
  async bitmapOf(block: number, signal: AbortSignal): Promise<number> {
    const index = this.#indexOf(block - (block % this.#chunkBlocks)) + this.#chunkBlocks;
    const position = this.#offset + index * entryBytes;
    const page = await this.#pages.page(Math.floor(position / pageBytes), signal);
    const entry = readEntry(viewOf(page), position % pageBytes, this.#path);
    if (stateOf(entry) === blockState.present) return placeOf(entry);
    throw new ImageCorrupt(`${this.#path}: its block ${block} is there in part, and no bitmap tells which part`);
  }

  #indexOf(block: number): number {
    return block + Math.floor(block / this.#chunkBlocks);
  }
}

/** Bits 3 to 19 are reserved. */
function readEntry(view: DataView, at: number, path: string): BlockEntry {
  const [low, high] = [view.getUint32(at, true), view.getUint32(at + 4, true)];
  if ((low & 0xffff8) !== 0) throw new ImageCorrupt(`${path}: its block table has an entry with reserved bits`);
  return (high * 4096 + (low >>> 20)) * 8 + (low & 7);
}

/** Reads the whole table once: no entry has an unknown state, leaves the file, or shares its place with another one. */
export async function checkBlockTable(
  file: RandomAccessFile,
  pages: FilePages,
  regions: Regions,
  { blockBytes, parent }: Metadata,
  shape: BlockTableShape,
  signal: AbortSignal,
): Promise<void> {
  const { offset, length } = regions.blockTable;
  if (shape.entries * entryBytes > length)
    throw new ImageCorrupt(`${file.path}: its block table of ${length} bytes has no room for ${shape.blocks} blocks`);
  const taken = new TakenPlaces(file);
  for (const region of regions.all) taken.take(region.offset, region.length);
  for (let first = 0; first < shape.entries; first += entriesAPage) {
    signal.throwIfAborted();
    const view = viewOf(await pages.page((offset + first * entryBytes) / pageBytes, signal));
    const count = Math.min(entriesAPage, shape.entries - first);
    for (let i = 0; i < count; i++) {
      const entry = readEntry(view, i * entryBytes, file.path);
      const isBitmap = (first + i) % (shape.chunkBlocks + 1) === shape.chunkBlocks;
      if (entry === 0) continue;
      checkState(file, stateOf(entry), isBitmap, parent !== null);
      const state = stateOf(entry);
      const holds = state === blockState.present || state === blockState.partial;
      if (holds) taken.take(placeOf(entry), isBitmap ? bitmapBlockBytes : blockBytes);
    }
  }
}

function checkState({ path }: RandomAccessFile, state: number, isBitmap: boolean, hasParent: boolean): void {
  const known = isBitmap
    ? state === blockState.notPresent || state === blockState.present
    : state <= blockState.unmapped || state === blockState.present || (state === blockState.partial && hasParent);
  if (!known) throw new ImageCorrupt(`${path}: its block table has an entry in state ${state}, which it can't be in`);
}

/** A bit for each MiB of the file. */
class TakenPlaces {
  readonly #file: RandomAccessFile;
  readonly #taken: Uint8Array;

  constructor(file: RandomAccessFile) {
    this.#file = file;
    this.#taken = new Uint8Array(Math.ceil(file.sizeBytes / mebibyte / 8));
  }

  take(offset: number, length: number): void {
    if (offset + length > this.#file.sizeBytes)
      throw new ImageCorrupt(
        `${this.#file.path} ends at ${this.#file.sizeBytes}, and its block at ${offset} reaches beyond: it was truncated`,
      );
    for (let at = offset / mebibyte; at < (offset + length) / mebibyte; at++) {
      const bit = 1 << (at % 8);
      if (((this.#taken[at >> 3] ?? 0) & bit) !== 0)
        throw new ImageCorrupt(`${this.#file.path}: two of its blocks lie at the same place, ${at} MiB`);
      this.#taken[at >> 3] = (this.#taken[at >> 3] ?? 0) | bit;
    }
  }
}
