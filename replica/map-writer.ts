import { digestBytes } from '../crypto/suite.ts';
import { type BlockMap, blockCountOf, type MapGeometry, type WalkGuide } from './block-map.ts';
import { placesOf, samePlace } from './leaf.ts';
import { type SegmentId, segmentKey } from './names.ts';
import {
  type ChildRef,
  encodeInner,
  encodeLeaf,
  fanOut,
  leafBlocks,
  type PageRef,
  pageSpan,
  type Run,
  rootLevel,
} from './page.ts';
import { codec, type RecordAddress, recordType, type UnsealedRecord } from './segment.ts';
import type { UnitCount } from './unit-count.ts';

/** Makes the next map of a disk from the newest one, copy on write: docs/format.md §7. */

/** New pages held back, so that a small sync needs no segment for pages alone. At most 5 KiB each. */
const pendingPagesDefault = 2048;
const pageBytesEstimate = 4096;

/** Takes records into an open segment, which it seals and replaces when it is full. */
export interface RecordPacker {
  /** The segment that the next `add` goes to, if nobody else adds before: closes the open one if it lacks room for so many bytes. */
  room(bytes: number, signal: AbortSignal): Promise<SegmentId>;
  add(record: UnsealedRecord): RecordAddress;
  /** Digests of the segment's pages by record number, once it is sealed. */
  pageDigests(id: SegmentId): Promise<ReadonlyMap<number, Uint8Array>>;
}

/** A page of the newest map that stays, a new one that has its place already, or a new one that has none yet. */
type Node = KeptPage | PlacedPage | NewLeaf | NewInner;
interface KeptPage {
  readonly kind: 'kept';
  readonly ref: PageRef;
}
interface PlacedPage {
  readonly kind: 'placed';
  readonly at: RecordAddress;
}
interface NewLeaf {
  readonly kind: 'leaf';
  readonly firstBlock: number;
  /** Encoded already: as runs it would take ten times as much until it is placed. */
  readonly body: Uint8Array;
}
interface NewInner {
  readonly kind: 'inner';
  readonly level: number;
  readonly firstBlock: number;
  /** Null: no longer there. */
  readonly children: Map<number, Node | null>;
  /** The page that this one replaces as soon as a child changes. */
  replaces: PageRef | null;
  changed: boolean;
  /** False: of the page that it replaces, the children that stay are to be read again. 64 of them take ten times what is new. */
  isWhole: boolean;
}

export interface MapWriterOptions {
  readonly pendingPagesMax?: number | undefined;
  /**
   * Segments that a repair must leave behind. Each leaf that the newest map has is replaced then, with runs outside of these, and
   * the pages follow by themselves.
   */
  readonly isDamaged?: ((id: SegmentId) => boolean) | undefined;
}

export class MapWriter {
  readonly #geometry: MapGeometry;
  readonly #level: number;
  readonly #old: BlockMap;
  readonly #units: UnitCount;
  /** Pages of the newest map in these segments are written anew even where nothing changed. */
  readonly #isDamaged: (id: SegmentId) => boolean;
  /** For pages that have to go before the end. */
  #overflow: RecordPacker;
  readonly #pendingPagesMax: number;
  #root: Node | null;
  /** Inner pages from the root down to the leaf that was replaced last. */
  #path: NewInner[] = [];
  #pendingPages = 0;
  #lastLeaf = -1;

  private constructor(
    geometry: MapGeometry,
    old: BlockMap,
    units: UnitCount,
    overflow: RecordPacker,
    options: { readonly pendingPagesMax: number; readonly isDamaged: (id: SegmentId) => boolean },
    root: Node | null,
  ) {
    this.#geometry = geometry;
    this.#level = rootLevel(blockCountOf(geometry));
    this.#old = old;
    this.#units = units;
    this.#overflow = overflow;
    this.#pendingPagesMax = options.pendingPagesMax;
    this.#isDamaged = options.isDamaged;
    this.#root = root;
  }

  /** `old` is the newest map of the same generation, perhaps of another capacity; an empty one for a new generation. */
  static async start(
    geometry: MapGeometry,
    old: BlockMap,
    units: UnitCount,
    overflow: RecordPacker,
    signal: AbortSignal,
    { pendingPagesMax = pendingPagesDefault, isDamaged = (): boolean => false }: MapWriterOptions = {},
  ): Promise<MapWriter> {
    const level = rootLevel(blockCountOf(geometry));
    const root = old.level > level ? await lowerRoot(old, level, units, signal) : raiseRoot(old, level);
    return new MapWriter(geometry, old, units, overflow, { pendingPagesMax, isDamaged }, root);
  }

  /** `runs` is the whole new content of the leaf. Leaves come in ascending order; those left out stay as they are. */
  async replaceLeaf(leafIndex: number, runs: readonly Run[], signal: AbortSignal): Promise<void> {
    if (leafIndex <= this.#lastLeaf) throw new Error(`leaf ${leafIndex} after leaf ${this.#lastLeaf}`);
    const end = runs.at(-1);
    if (end !== undefined && end.first + end.count > blockCountOf(this.#geometry)) {
      throw new Error(`leaf ${leafIndex} maps blocks beyond the end of the disk`);
    }
    this.#lastLeaf = leafIndex;
    const firstBlock = leafIndex * leafBlocks;
    const oldPath = await this.#old.pathTo(leafIndex, signal);
    const oldLeaf = oldPath.at(-1);
    const oldRuns = oldLeaf !== undefined && 'runs' in oldLeaf.page ? oldLeaf.page.runs : [];
    const contentChanged = this.#countChanges(oldRuns, runs, firstBlock);
    const leafDamaged = oldRuns.length > 0 && oldLeaf !== undefined && this.#isDamaged(oldLeaf.ref);
    if (!contentChanged && !oldPath.some(({ ref }) => this.#isDamaged(ref))) return;
    await this.#openPath(firstBlock, signal);
    this.#markPathChanged();
    if (contentChanged || leafDamaged) this.#setLeaf(firstBlock, runs);
    if (this.#pendingPages > this.#pendingPagesMax) await this.#placeClosed(signal);
  }

  /**
   * Places what is left, the root last, and returns where the root lies; null for an empty disk. `overflow` is flushed before,
   * and `packer` knows the digests of its segments.
   */
  async finish(packer: RecordPacker, signal: AbortSignal): Promise<RecordAddress | PageRef | null> {
    this.#overflow = packer;
    await this.clearBeyondCapacity(signal);
    this.#path = [];
    const root = this.#root === null ? null : await this.#place(this.#root, packer, signal);
    if (root === null) return null;
    return root.kind === 'kept' ? root.ref : root.at;
  }

  /**
   * After the last leaf: clears blocks that a smaller disk no longer has; left in the map, they would come back from the dead when
   * it grows again. `finish` does it, too; whoever wants to know earlier that the old map can't be read calls it before.
   */
  async clearBeyondCapacity(signal: AbortSignal): Promise<void> {
    const blocks = blockCountOf(this.#geometry);
    const to = Math.min(blockCountOf(this.#old.geometry), pageSpan(this.#level));
    const from = Math.max(Math.floor(blocks / leafBlocks), this.#lastLeaf + 1);
    for (let leaf = from; leaf * leafBlocks < to && blocks < to; leaf++) {
      const runs = await this.#old.leafRuns(leaf, signal);
      await this.replaceLeaf(leaf, withinDisk(runs, blocks), signal);
    }
  }

  /** Counts used and dropped blocks; false when the leaf stays as it is. */
  #countChanges(oldRuns: readonly Run[], runs: readonly Run[], firstBlock: number): boolean {
    const before = placesOf(oldRuns, firstBlock);
    const after = placesOf(runs, firstBlock);
    let changed = false;
    before.forEach((old, i) => {
      const next = after[i] ?? null;
      if (samePlace(old, next, firstBlock + i)) return;
      changed = true;
      if (old !== null) this.#units.drop(old.at);
      if (next !== null) this.#units.use(next.at);
    });
    return changed;
  }

  async #openPath(firstBlock: number, signal: AbortSignal): Promise<void> {
    if (this.#level === 0) return;
    while (this.#path.length > 0 && !covers(this.#path.at(-1), firstBlock)) forgetKept(this.#path.pop());
    if (this.#path.length === 0) {
      const root = await this.#openNode(this.#root, this.#level, 0, signal);
      this.#path = [root];
    }
    for (let parent = this.#path.at(-1); parent !== undefined && parent.level > 1; parent = this.#path.at(-1)) {
      const level = parent.level - 1;
      const pageFirst = firstBlock - (firstBlock % pageSpan(level));
      const child = parent.children.get((pageFirst - parent.firstBlock) / pageSpan(level)) ?? null;
      this.#path.push(await this.#openNode(child, level, pageFirst, signal));
    }
  }

  async #openNode(node: Node | null, level: number, firstBlock: number, signal: AbortSignal): Promise<NewInner> {
    if (node?.kind === 'inner') return node;
    if (node?.kind === 'placed') throw new Error('a page was opened again after it was placed');
    const replaces = node?.kind === 'kept' ? node.ref : null;
    const opened: NewInner = {
      ...{ kind: 'inner', level, firstBlock, children: new Map() },
      ...{ replaces, changed: false, isWhole: replaces === null },
    };
    await this.#makeWhole(opened, signal);
    return opened;
  }

  async #makeWhole(node: NewInner, signal: AbortSignal): Promise<void> {
    if (node.isWhole || node.replaces === null) return;
    const page = await this.#old.page(node.replaces, node.level, node.firstBlock, signal);
    if ('children' in page)
      for (const ref of page.children)
        if (!node.children.has(ref.child)) node.children.set(ref.child, { kind: 'kept', ref });
    node.isWhole = true;
  }

  #markPathChanged(): void {
    this.#path.forEach((node, depth) => {
      if (node.changed) return;
      node.changed = true;
      if (node.replaces !== null) this.#units.dropPage(node.replaces);
      this.#pendingPages++;
      const parent = this.#path[depth - 1];
      if (parent === undefined) this.#root = node;
      else parent.children.set((node.firstBlock - parent.firstBlock) / pageSpan(node.level), node);
    });
  }

  #setLeaf(firstBlock: number, runs: readonly Run[]): void {
    const parent = this.#path.at(-1);
    const position = parent === undefined ? 0 : (firstBlock - parent.firstBlock) / leafBlocks;
    const old = parent === undefined ? this.#root : (parent.children.get(position) ?? null);
    if (old?.kind === 'kept') this.#units.dropPage(old.ref);
    const leaf: NewLeaf | null =
      runs.length === 0 ? null : { kind: 'leaf', firstBlock, body: encodeLeaf(firstBlock, runs) };
    if (leaf !== null) this.#pendingPages++;
    if (parent === undefined) this.#root = leaf;
    else parent.children.set(position, leaf);
  }

  /** Places every new page that no later leaf can touch. */
  async #placeClosed(signal: AbortSignal): Promise<void> {
    for (const [depth, node] of this.#path.entries()) {
      for (const [position, child] of node.children) {
        if (child === null || child === this.#path[depth + 1]) continue;
        node.children.set(position, await this.#place(child, this.#overflow, signal));
      }
    }
    this.#pendingPages = this.#path.length;
  }

  /** Children before parents, so that a parent can hold their addresses and digests. */
  async #place(node: Node, packer: RecordPacker, signal: AbortSignal): Promise<KeptPage | PlacedPage | null> {
    if (node.kind === 'kept' || node.kind === 'placed') return node;
    if (node.kind === 'leaf') {
      await packer.room(node.body.length, signal);
      return this.#add(packer, 0, node.firstBlock, node.body, []);
    }
    if (!node.changed && node.replaces !== null) return { kind: 'kept', ref: node.replaces };
    await this.#makeWhole(node, signal);
    const children: [number, KeptPage | PlacedPage][] = [];
    for (let position = 0; position < fanOut; position++) {
      const child = node.children.get(position) ?? null;
      const placed = child === null ? null : await this.#place(child, packer, signal);
      if (placed !== null) children.push([position, placed]);
    }
    forgetKept(node);
    if (children.length === 0) return null;
    const open = await packer.room(pageBytesEstimate, signal);
    const refs = await Promise.all(children.map(([position, child]) => childRef(position, child, open, packer)));
    const { bytes, holes } = encodeInner(node.level, refs);
    const placed = this.#add(packer, node.level, node.firstBlock, bytes, holes);
    // Holes are filled by record number: in another segment they would take the digests of other pages.
    if (segmentKey(placed.at) !== segmentKey(open)) throw new Error('the open segment changed while a page was made');
    return placed;
  }

  #add(
    packer: RecordPacker,
    level: number,
    firstBlock: number,
    body: Uint8Array,
    childDigests: UnsealedRecord['childDigests'],
  ): PlacedPage {
    const { diskId, blockSize } = this.#geometry;
    const binding = { diskId, blockSize, firstBlock, blockCount: pageSpan(level), plaintextLength: body.length };
    const at = packer.add({
      type: recordType.page,
      codec: codec.stored,
      ...binding,
      body,
      digests: new Uint8Array(),
      childDigests,
    });
    this.#units.use(at);
    return { kind: 'placed', at };
  }
}

/**
 * Counts everything under a page as dropped: a removed disk, an ended generation, the far end of a disk that shrank. `guide` may
 * step over pages that can't be read: what lies below them is not counted, so that a sweeper keeps it rather than too little.
 */
export async function dropSubtree(
  map: BlockMap,
  ref: PageRef,
  level: number,
  firstBlock: number,
  units: UnitCount,
  signal: AbortSignal,
  guide?: WalkGuide,
): Promise<void> {
  for await (const visited of map.subtree(ref, level, firstBlock, signal, guide)) {
    units.dropPage(visited.ref);
    if ('runs' in visited.page) for (const run of visited.page.runs) units.drop(run.at, run.count);
  }
}

/** What is left of a leaf's runs when the disk ends after so many blocks. */
function withinDisk(runs: readonly Run[], blocks: number): readonly Run[] {
  return runs
    .filter((run) => run.first < blocks)
    .map((run) => {
      const count = Math.min(run.count, blocks - run.first);
      return { ...run, count, digests: run.digests.subarray(0, count * digestBytes) };
    });
}

/** No later leaf lies below: the children that stay can be read again when the page is made. */
function forgetKept(node: NewInner | undefined): void {
  if (node === undefined || node.replaces === null) return;
  for (const [position, child] of node.children) if (child?.kind === 'kept') node.children.delete(position);
  node.isWhole = false;
}

function covers(node: NewInner | undefined, block: number): boolean {
  return node !== undefined && block >= node.firstBlock && block < node.firstBlock + pageSpan(node.level);
}

async function childRef(
  child: number,
  node: KeptPage | PlacedPage,
  open: SegmentId,
  packer: RecordPacker,
): Promise<ChildRef> {
  if (node.kind === 'kept') return { ...node.ref, child };
  const inOpenSegment = segmentKey(node.at) === segmentKey(open);
  const digest = inOpenSegment ? null : (await packer.pageDigests(node.at)).get(node.at.record);
  if (digest === undefined) throw new Error(`no digest of the page in segment ${segmentKey(node.at)}`);
  return { ...node.at, child, digest };
}

/** A larger disk: the old root becomes child 0 of new pages above it. */
function raiseRoot(old: BlockMap, level: number): Node | null {
  let node: Node | null = old.root === null ? null : { kind: 'kept', ref: old.root };
  for (let above = old.level + 1; node !== null && above <= level; above++) {
    node = {
      kind: 'inner',
      level: above,
      firstBlock: 0,
      children: new Map([[0, node]]),
      replaces: null,
      changed: true,
      isWhole: true,
    };
  }
  return node;
}

/** A smaller disk: the pages above its root go, with all that lies outside child 0. */
async function lowerRoot(old: BlockMap, level: number, units: UnitCount, signal: AbortSignal): Promise<Node | null> {
  let ref = old.root;
  for (let above = old.level; ref !== null && above > level; above--) {
    const page = await old.page(ref, above, 0, signal);
    units.dropPage(ref);
    ref = null;
    if ('runs' in page) break;
    for (const child of page.children) {
      if (child.child === 0) ref = child;
      else await dropSubtree(old, child, above - 1, child.child * pageSpan(above - 1), units, signal);
    }
  }
  return ref === null ? null : { kind: 'kept', ref };
}
