import type { FilePages, PageCache } from './file-pages.ts';
import type { ImageLayer, LayerRun, ParentReference } from './image-layer.ts';
import { type Metadata, readMetadata } from './metadata.ts';
import type { ParentLocator } from './parent-locator.ts';
import type { RandomAccessFile } from './random-access-file.ts';
import { readRegions } from './region-table.ts';
import { withLogReplayed } from './replay-log.ts';
import { bitRun } from './sector-bitmap.ts';
import {
  type BlockEntry,
  type BlockTableShape,
  blockState,
  blockTableShape,
  checkBlockTable,
  placeOf,
  stateOf,
  VhdxBlockTable,
} from './vhdx-block-table.ts';
import { readHeader } from './vhdx-header.ts';

/** Header, log, regions, metadata, block table: throws ImageCorrupt or ImageUnsupported where one of them is not as it must be. */
export async function openVhdxLayer(
  opened: RandomAccessFile,
  cache: PageCache,
  signal: AbortSignal,
): Promise<ImageLayer> {
  const header = await readHeader(opened, signal);
  const file = await withLogReplayed(opened, header, signal);
  const regions = await readRegions(file, header, signal);
  const metadata = await readMetadata(file, regions.metadata, signal);
  const pages = cache.of(file);
  const shape = blockTableShape(metadata);
  await checkBlockTable(file, pages, regions, metadata, shape, signal);
  const table = new VhdxBlockTable(file.path, pages, regions.blockTable.offset, shape);
  const blocks = new VhdxBlocks(metadata, shape, pages, table);
  return {
    file,
    capacityBytes: metadata.capacityBytes,
    sectorBytes: metadata.sectorBytes,
    diskIdentity: metadata.identity,
    identifiers: new Set([header.dataWriteGuid]),
    parent: metadata.parent === null ? null : referenceOf(metadata.parent),
    runAt: (offset, end, runSignal) => blocks.runAt(offset, end, runSignal),
  };
}

function referenceOf({ linkages, relativePath, absolutePaths }: ParentLocator): ParentReference {
  const relative = relativePath === null ? [] : [{ relative: true, path: relativePath }];
  return {
    identifiers: linkages,
    paths: [...relative, ...absolutePaths.map((path) => ({ relative: false, path }))],
  };
}

class VhdxBlocks {
  readonly #metadata: Metadata;
  readonly #shape: BlockTableShape;
  readonly #pages: FilePages;
  readonly #table: VhdxBlockTable;

  constructor(metadata: Metadata, shape: BlockTableShape, pages: FilePages, table: VhdxBlockTable) {
    this.#metadata = metadata;
    this.#shape = shape;
    this.#pages = pages;
    this.#table = table;
  }

  /** Blocks that mean the same, and lie one behind the other where they hold data, are one run. */
  async runAt(offset: number, end: number, signal: AbortSignal): Promise<LayerRun> {
    signal.throwIfAborted();
    const { blockBytes } = this.#metadata;
    let block = Math.floor(offset / blockBytes);
    let piece = await this.#table.from(block, signal);
    const first = piece.entry(block) ?? 0;
    const kind = this.#kindOf(first);
    if (kind === 'partial') return await this.#partialRun(block, first, offset, end, signal);
    const at = kind === 'data' ? placeOf(first) + (offset % blockBytes) : 0;
    let runEnd = (block + 1) * blockBytes;
    for (; runEnd < end; runEnd += blockBytes) {
      block++;
      let entry = piece.entry(block);
      if (entry === null) {
        piece = await this.#table.from(block, signal);
        entry = piece.entry(block) ?? 0;
      }
      if (this.#kindOf(entry) !== kind) break;
      if (kind === 'data' && placeOf(entry) !== at + runEnd - offset) break;
    }
    return { length: Math.min(runEnd, end) - offset, kind, at };
  }

  /** An explicit zero is none of the parent's business; what is unmapped or undefined may read as anything, and reads as zero here. */
  #kindOf(entry: BlockEntry): LayerRun['kind'] | 'partial' {
    const state = stateOf(entry);
    if (state === blockState.present) return 'data';
    if (state === blockState.partial) return 'partial';
    return state === blockState.notPresent && this.#metadata.parent !== null ? 'parent' : 'zero';
  }

  async #partialRun(
    block: number,
    entry: BlockEntry,
    offset: number,
    end: number,
    signal: AbortSignal,
  ): Promise<LayerRun> {
    const { blockBytes, sectorBytes } = this.#metadata;
    const blockStart = block * blockBytes;
    const firstBit = (block % this.#shape.chunkBlocks) * (blockBytes / sectorBytes);
    const bitOf = (position: number): number => firstBit + (position - blockStart) / sectorBytes;
    const wantedEnd = Math.min(end, blockStart + blockBytes);
    const bitmap = {
      pages: this.#pages,
      order: 'lowest-first' as const,
      fileOffset: await this.#table.bitmapOf(block, signal),
    };
    const run = await bitRun(bitmap, Math.floor(bitOf(offset)), Math.ceil(bitOf(wantedEnd)), signal);
    const runEnd = Math.min(wantedEnd, blockStart + (run.end - firstBit) * sectorBytes);
    const at = placeOf(entry) + (offset - blockStart);
    return { length: runEnd - offset, kind: run.set ? 'data' : 'parent', at };
  }
}
