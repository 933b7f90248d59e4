import { NbdRequestFailed } from '../../hypervisors/nbd/nbd-errors.ts';
import type { NbdExportHandler, ServedExtent } from '../../hypervisors/nbd/server/nbd-export-handler.ts';
import { untilAborted } from '../../hypervisors/until-aborted.ts';
import { isDamage } from '../../replica/damage.ts';
import type { DiskState } from '../../replica/manifest.ts';
import { leafBlocks, type Run } from '../../replica/page.ts';
import type { PlannedRecord } from '../fetch-range.ts';
import type { OpenedPiece } from '../open-range.ts';
import type { BlockCache } from './block-cache.ts';
import { DiskMap } from './disk-map.ts';
import type { KeptPages } from './kept-pages.ts';
import { ReadAhead } from './read-ahead.ts';
import { type RecordFetcher, recordOf } from './record-fetcher.ts';

/** One disk of a recovery point, as whoever reads it sees it. */

const readAheadBytesMax = 8 * 2 ** 20;
/** What is read ahead must not push out what is about to be read. */
const readAheadShareOfCache = 0.25;
/** A status question about a large disk is answered in parts, each after so many leaves at most. */
const leavesPerQuestionMax = 256;
const preferredBlockBytesMax = 64 * 1024;

export interface ServedDiskTools {
  readonly pages: KeptPages;
  readonly fetcher: RecordFetcher;
  readonly cache: BlockCache;
  /** A page of the map is not what it should be. */
  readonly damaged: (disk: DiskState, blocks: BlockRange, error: Error) => void;
  /** Of the service: what is read ahead has no client of its own. */
  readonly signal: AbortSignal;
}

export interface BlockRange {
  readonly first: number;
  readonly count: number;
}

export class ServedDisk implements NbdExportHandler {
  readonly name: string;
  readonly description: string;
  readonly capacityBytes: number;
  readonly preferredBlockBytes: number;
  /** What clients were given. */
  readBytes = 0;
  readonly #disk: DiskState;
  readonly #index: number;
  readonly #tools: ServedDiskTools;
  readonly #map: DiskMap;
  readonly #ahead: ReadAhead;

  /** `index`: the cache's number for this disk. */
  constructor(disk: DiskState, index: number, description: string, tools: ServedDiskTools) {
    this.name = disk.label;
    this.description = description;
    this.capacityBytes = disk.capacityBytes;
    this.preferredBlockBytes = Math.min(disk.blockSize, preferredBlockBytesMax);
    this.#disk = disk;
    this.#index = index;
    this.#tools = tools;
    this.#map = new DiskMap(disk, tools.pages, tools.signal);
    this.#ahead = new ReadAhead(Math.min(readAheadBytesMax, tools.cache.bytesMax * readAheadShareOfCache));
  }

  async read(offset: number, into: Uint8Array, signal: AbortSignal): Promise<void> {
    this.readBytes += into.length;
    const missing = this.#copyCached(offset, into);
    const ahead = this.#ahead.after(offset, into.length);
    if (ahead !== null) void this.#readAhead(ahead);
    const leaves = Map.groupBy(missing, (block) => Math.floor(block / leafBlocks));
    if (leaves.size === 0) return;
    await Promise.all([...leaves].map(([leaf, blocks]) => this.#readLeaf(leaf, blocks, { offset, into }, signal)));
  }

  async *extents(offset: number, length: number, signal: AbortSignal): AsyncGenerator<ServedExtent> {
    const { blockSize } = this.#disk;
    const end = Math.min(offset + length, this.capacityBytes);
    let leaves = 0;
    for (let at = offset; at < end && leaves < leavesPerQuestionMax; leaves += 1) {
      const block = Math.floor(at / blockSize);
      const leaf = Math.floor(block / leafBlocks);
      const { runs, endBlock } = await this.#mapped(leaf, this.#map.allocationAt(block), signal);
      const stop = Math.min(end, endBlock * blockSize);
      for (const run of runs) {
        const [start, runEnd] = [run.first * blockSize, Math.min((run.first + run.count) * blockSize, stop)];
        if (runEnd <= at) continue;
        if (start >= stop) break;
        if (start > at) yield { offset: at, length: start - at, zero: true };
        at = Math.max(at, start);
        yield { offset: at, length: runEnd - at, zero: false };
        at = runEnd;
      }
      if (at < stop) yield { offset: at, length: stop - at, zero: true };
      at = stop;
    }
  }

  /** Which blocks of the range are not in the cache. */
  #copyCached(offset: number, into: Uint8Array): readonly number[] {
    const { unitBytes } = this.#tools.cache;
    const missing = new Set<number>();
    for (let at = offset; at < offset + into.length; ) {
      const from = at % unitBytes;
      const next = Math.min(offset + into.length, at - from + unitBytes);
      const part = into.subarray(at - offset, next - offset);
      if (!this.#tools.cache.copy(this.#index, (at - from) / unitBytes, from, part))
        missing.add(Math.floor(at / this.#disk.blockSize));
      at = next;
    }
    return [...missing];
  }

  async #readLeaf(
    leaf: number,
    blocks: readonly number[],
    wanted: { readonly offset: number; readonly into: Uint8Array },
    signal: AbortSignal,
  ): Promise<void> {
    const { blockSize } = this.#disk;
    const runs = await this.#leafRuns(leaf, signal);
    const records = new Map<string, PlannedRecord>();
    const left = new Set(blocks);
    const take = ({ firstBlock, bytes }: OpenedPiece): void => {
      this.#copyBlocks(firstBlock, bytes, wanted);
      for (let at = 0; at < bytes.length; at += blockSize) left.delete(firstBlock + at / blockSize);
    };
    for (const block of blocks) {
      const run = runOf(runs, block);
      if (run === undefined) take({ firstBlock: block, bytes: zeros(blockSize) });
      else records.set(nameOf(run), recordOf(run, runs));
    }
    await Promise.all([...records.values()].map((record) => this.#fetch(record, take, signal)));
    // What is in the reply's memory there is nobody's business.
    const [missed] = left;
    if (missed !== undefined) throw new RangeError(`${this.name}: block ${missed} is in no record that was opened`);
  }

  async #fetch(record: PlannedRecord, take: (piece: OpenedPiece) => void, signal: AbortSignal): Promise<void> {
    try {
      await this.#tools.fetcher.fetch(this.#disk, record, take, signal);
    } catch (error) {
      signal.throwIfAborted();
      throw this.#refusal(recordRange(record), error);
    }
  }

  /** The part of these blocks that was asked for. */
  #copyBlocks(
    firstBlock: number,
    bytes: Uint8Array,
    { offset, into }: { readonly offset: number; readonly into: Uint8Array },
  ): void {
    const start = firstBlock * this.#disk.blockSize;
    const [from, to] = [Math.max(start, offset), Math.min(start + bytes.length, offset + into.length)];
    if (from < to) into.set(bytes.subarray(from - start, to - start), from - offset);
  }

  #leafRuns(leaf: number, signal: AbortSignal): Promise<readonly Run[]> {
    return this.#mapped(leaf, this.#map.leafRuns(leaf), signal);
  }

  /** Others may wait for the same page, so that it is read for the service and not for one client. */
  async #mapped<T>(leaf: number, reading: Promise<T>, signal: AbortSignal): Promise<T> {
    try {
      return await untilAborted(reading, signal);
    } catch (error) {
      signal.throwIfAborted();
      const blocks = { first: leaf * leafBlocks, count: leafBlocks };
      if (isDamage(error)) this.#tools.damaged(this.#disk, blocks, error);
      throw this.#refusal(blocks, error);
    }
  }

  /** The client gets to know which blocks, and why. */
  #refusal({ first, count }: BlockRange, error: unknown): Error {
    const why = error instanceof Error ? error.message : String(error);
    const words = `${this.name}: blocks ${first} to ${first + count - 1} can't be read: ${why}`;
    return new NbdRequestFailed(words, 'EIO', { cause: error });
  }

  /** Never rejects: whoever reads there for himself hears what is wrong. */
  async #readAhead({ offset, end }: { readonly offset: number; readonly end: number }): Promise<void> {
    const { blockSize, capacityBytes } = this.#disk;
    const lastBlock = Math.ceil(Math.min(end, capacityBytes) / blockSize) - 1;
    const firstBlock = Math.floor(offset / blockSize);
    try {
      for (let leaf = Math.floor(firstBlock / leafBlocks); leaf * leafBlocks <= lastBlock; leaf += 1) {
        const runs = await this.#map.leafRuns(leaf);
        const near = runs.filter(({ first, count }) => first <= lastBlock && first + count > firstBlock);
        for (const run of near.filter((each) => !this.#isCached(each)))
          this.#tools.fetcher.fetchAhead(this.#disk, recordOf(run, runs));
      }
    } catch {
      // A hint is lost, no more.
    }
  }

  #isCached({ first }: Run): boolean {
    const { cache } = this.#tools;
    return cache.has(this.#index, (first * this.#disk.blockSize) / cache.unitBytes);
  }
}

function runOf(runs: readonly Run[], block: number): Run | undefined {
  return runs.find(({ first, count }) => block >= first && block < first + count);
}

function nameOf({ at }: Run): string {
  return `${at.tenure} ${at.number} ${at.record}`;
}

/** From its first block that is in use to the last. */
export function recordRange({ run, pieces }: PlannedRecord): BlockRange {
  const recordFirst = run.first - run.inside;
  const first = Math.min(...pieces.map(({ inside }) => inside));
  const end = Math.max(...pieces.map(({ inside, count }) => inside + count));
  return { first: recordFirst + first, count: end - first };
}

const zeroBytes = new Uint8Array(2 ** 20);

function zeros(length: number): Uint8Array {
  return length <= zeroBytes.length ? zeroBytes.subarray(0, length) : new Uint8Array(length);
}
