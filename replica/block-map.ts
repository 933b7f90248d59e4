import { FormatInvalid, toHex } from './encoding.ts';
import {
  type ChildRef,
  type InnerPage,
  type Leaf,
  leafBlocks,
  type PageRef,
  pageSpan,
  parsePage,
  type Run,
  rootLevel,
} from './page.ts';

/** Reading a disk's block map: docs/format.md §7. Memory is bounded by the page cache, whatever the disk size. */

/** A parsed leaf of 64 runs takes 30 KiB; a walk or a sync comes back only to the pages above the newest leaves. */
const pagesCachedMax = 128;

/** What a map's pages are bound to. */
export interface MapGeometry {
  /** 16 bytes. */
  readonly diskId: Uint8Array;
  readonly blockSize: number;
  readonly capacityBytes: number;
}

/** Fetches and opens pages: from the bucket, or from the local cache of the head's map. */
export interface PageSource {
  /** The opened page, whose sealed bytes have `ref.digest`. */
  readPage(
    geometry: MapGeometry,
    ref: PageRef,
    level: number,
    firstBlock: number,
    signal: AbortSignal,
  ): Promise<Uint8Array>;
  /** A hint: these pages of one level will be read next. Pages that can't be fetched fail when they are read, not here. */
  prefetch(geometry: MapGeometry, pages: readonly PrefetchedPage[], signal: AbortSignal): Promise<void>;
}

export interface PrefetchedPage {
  readonly ref: PageRef;
  readonly level: number;
  readonly firstBlock: number;
}

/** Steers a walk over pages: around those that were seen before, and past those that can't be read. */
export interface WalkGuide {
  /** False leaves out this page and all below it. Called before it is read, parents first, in block order. */
  enter(ref: PageRef, level: number): boolean;
  /** Return to go on with the next page, or throw. */
  unreadable(ref: PageRef, level: number, error: unknown): void;
}

interface VisitedPage {
  readonly ref: PageRef;
  readonly page: Leaf | InnerPage;
  readonly firstBlock: number;
}

interface VisitedLeaf {
  readonly firstBlock: number;
  readonly runs: readonly Run[];
}

const wholeWalk: WalkGuide = {
  enter: () => true,
  unreadable(_ref, _level, error) {
    throw error;
  },
};

export function blockCountOf(geometry: MapGeometry): number {
  return Math.ceil(geometry.capacityBytes / geometry.blockSize);
}

/** The last block that a leaf maps, or the first of an inner page's last child. */
function lastBlockOf(page: Leaf | InnerPage, firstBlock: number): number {
  if (!('runs' in page)) return firstBlock + (page.children.at(-1)?.child ?? 0) * pageSpan(page.level - 1);
  const run = page.runs.at(-1);
  return run === undefined ? firstBlock : run.first + run.count - 1;
}

export class BlockMap {
  readonly geometry: MapGeometry;
  readonly root: PageRef | null;
  readonly level: number;
  readonly #source: PageSource;
  readonly #cache = new Map<string, Leaf | InnerPage>();

  constructor(geometry: MapGeometry, root: PageRef | null, source: PageSource) {
    this.geometry = geometry;
    this.root = root;
    this.level = rootLevel(blockCountOf(geometry));
    this.#source = source;
  }

  async page(ref: PageRef, level: number, firstBlock: number, signal: AbortSignal): Promise<Leaf | InnerPage> {
    const key = toHex(ref.digest);
    const cached = this.#cache.get(key);
    if (cached !== undefined) {
      this.#cache.delete(key);
      this.#cache.set(key, cached);
      return cached;
    }
    const bytes = await this.#source.readPage(this.geometry, ref, level, firstBlock, signal);
    const object = `page of level ${level} at block ${firstBlock} in segment ${ref.tenure}.${ref.number} record ${ref.record}`;
    const page = parsePage(bytes, level, firstBlock, object);
    if (lastBlockOf(page, firstBlock) >= blockCountOf(this.geometry))
      throw new FormatInvalid(object, 0, 'a page that maps blocks beyond the end of its disk');
    this.#cache.set(key, page);
    const oldest = this.#cache.size > pagesCachedMax ? this.#cache.keys().next().value : undefined;
    if (oldest !== undefined) this.#cache.delete(oldest);
    return page;
  }

  /** Runs of the leaf that covers block `leafIndex` × 64; empty where nothing is mapped. */
  async leafRuns(leafIndex: number, signal: AbortSignal): Promise<readonly Run[]> {
    const { page } = (await this.pathTo(leafIndex, signal)).at(-1) ?? {};
    return page !== undefined && 'runs' in page ? page.runs : [];
  }

  /** The pages from the root down to that leaf, or to the one above it of level `lowest`, as far as there are any. */
  async pathTo(leafIndex: number, signal: AbortSignal, lowest = 0): Promise<readonly VisitedPage[]> {
    const block = leafIndex * leafBlocks;
    const path: VisitedPage[] = [];
    let ref = block < pageSpan(this.level) ? this.root : null;
    for (let level = this.level; ref !== null && level >= lowest; level--) {
      const firstBlock = block - (block % pageSpan(level));
      const page = await this.page(ref, level, firstBlock, signal);
      path.push({ ref, page, firstBlock });
      if ('runs' in page) break;
      const child = Math.floor((block - firstBlock) / pageSpan(level - 1));
      ref = page.children.find((candidate) => candidate.child === child) ?? null;
    }
    return path;
  }

  /** The first leaf from `leafIndex` on that maps anything; null: there is none. */
  async leafFrom(leafIndex: number, signal: AbortSignal): Promise<number | null> {
    const block = leafIndex * leafBlocks;
    if (this.root === null || block >= pageSpan(this.level)) return null;
    return await this.#leafFrom(this.root, this.level, 0, block, signal);
  }

  async #leafFrom(
    ref: PageRef,
    level: number,
    firstBlock: number,
    block: number,
    signal: AbortSignal,
  ): Promise<number | null> {
    if (level === 0) return firstBlock / leafBlocks;
    const page = await this.page(ref, level, firstBlock, signal);
    const span = pageSpan(level - 1);
    for (const child of 'children' in page ? page.children : []) {
      const first = firstBlock + child.child * span;
      const found = first + span > block ? await this.#leafFrom(child, level - 1, first, block, signal) : null;
      if (found !== null) return found;
    }
    return null;
  }

  /** All runs of the disk in ascending order. Children of a page are fetched together. */
  async *runs(signal: AbortSignal): AsyncGenerator<Run> {
    for await (const { page } of this.pages(signal)) {
      if ('runs' in page) yield* page.runs;
    }
  }

  /** Every page, parents before children, in block order. */
  async *pages(signal: AbortSignal, guide: WalkGuide = wholeWalk): AsyncGenerator<VisitedPage> {
    if (this.root !== null) yield* this.subtree(this.root, this.level, 0, signal, guide);
  }

  /** The last leaf first, page by page: for whoever looks for something near the end. */
  async *leavesFromTheEnd(signal: AbortSignal): AsyncGenerator<VisitedLeaf> {
    if (this.root !== null) yield* this.#leavesBackwards(this.root, this.level, 0, signal);
  }

  async *#leavesBackwards(
    ref: PageRef,
    level: number,
    firstBlock: number,
    signal: AbortSignal,
  ): AsyncGenerator<VisitedLeaf> {
    const page = await this.page(ref, level, firstBlock, signal);
    if ('runs' in page) {
      yield { firstBlock, runs: page.runs };
      return;
    }
    for (const child of page.children.toReversed())
      yield* this.#leavesBackwards(child, level - 1, firstBlock + child.child * pageSpan(level - 1), signal);
  }

  async *subtree(
    ref: PageRef,
    level: number,
    firstBlock: number,
    signal: AbortSignal,
    guide: WalkGuide = wholeWalk,
  ): AsyncGenerator<VisitedPage> {
    if (!guide.enter(ref, level)) return;
    let page: Leaf | InnerPage;
    try {
      page = await this.page(ref, level, firstBlock, signal);
    } catch (error) {
      guide.unreadable(ref, level, error);
      return;
    }
    yield { ref, page, firstBlock };
    if ('runs' in page) return;
    const at = (child: ChildRef): number => firstBlock + child.child * pageSpan(level - 1);
    const uncached = page.children.filter((child) => !this.#cache.has(toHex(child.digest)));
    const wanted = uncached.map((child) => ({ ref: child, level: level - 1, firstBlock: at(child) }));
    await this.#source.prefetch(this.geometry, wanted, signal);
    for (const child of page.children) yield* this.subtree(child, level - 1, at(child), signal, guide);
  }
}
