import { BlockMap, blockCountOf } from '../../replica/block-map.ts';
import type { DiskState } from '../../replica/manifest.ts';
import { segmentKey } from '../../replica/names.ts';
import { type ChildRef, leafBlocks, pageSpan, type Run } from '../../replica/page.ts';
import type { RecordAddress } from '../../replica/segment.ts';
import type { KeptPages } from './kept-pages.ts';

/** Where the blocks of a served disk are; pages come when somebody asks, those that lie together with one request. */

/** Leaves of one request: a leaf has 1 to 4 KiB, so that these map a hundred MiB of disk. */
const leavesBytesMax = 64 * 1024;
const leafGapBytesMax = 1024;

type LeafRef = ChildRef & { readonly digest: Uint8Array };

interface LeavesOfPage {
  /** Of the page above them. */
  readonly firstBlock: number;
  readonly children: readonly LeafRef[];
}

export class DiskMap {
  readonly #disk: DiskState;
  readonly #pages: KeptPages;
  readonly #map: BlockMap;
  readonly #signal: AbortSignal;
  readonly #coming = new Map<string, Promise<void>>();

  constructor(disk: DiskState, pages: KeptPages, signal: AbortSignal) {
    this.#disk = disk;
    this.#pages = pages;
    this.#map = new BlockMap(disk, disk.root, pages);
    this.#signal = signal;
  }

  async leafRuns(leaf: number): Promise<readonly Run[]> {
    await this.#fetchNeighbours(leaf);
    return await this.#map.leafRuns(leaf, this.#signal);
  }

  /** The runs around a block up to `endBlock`, or none up to there. Whoever asks mostly asks for all: the leaves of a page come together. */
  async allocationAt(block: number): Promise<{ readonly runs: readonly Run[]; readonly endBlock: number }> {
    const leaf = Math.floor(block / leafBlocks);
    if (leaf % leafBlocks === 0) await this.#prefetch(await this.#leavesAround(leaf));
    const last = (await this.#map.pathTo(leaf, this.#signal)).at(-1);
    if (last === undefined) return { runs: [], endBlock: blockCountOf(this.#disk) };
    if ('runs' in last.page) return { runs: last.page.runs, endBlock: (leaf + 1) * leafBlocks };
    // The path ends where a page has no child: nothing below it is mapped.
    const span = pageSpan(last.page.level - 1);
    return { runs: [], endBlock: (Math.floor(block / span) + 1) * span };
  }

  /** The leaf with those that lie beside it in its segment: they map the disk nearby, and cost no further request. */
  async #fetchNeighbours(leaf: number): Promise<void> {
    const { firstBlock, children } = await this.#leavesAround(leaf);
    const wanted = children.find(({ child }) => firstBlock + child * leafBlocks === leaf * leafBlocks);
    if (wanted === undefined || this.#pages.has(wanted)) return;
    const group = neighboursOf(children, wanted);
    const key = `${segmentKey(wanted)} ${group[0]?.offset}`;
    const coming = this.#coming.get(key);
    if (coming !== undefined) return await coming;
    const fetching = this.#prefetch({ firstBlock, children: group }).finally(() => this.#coming.delete(key));
    this.#coming.set(key, fetching);
    await fetching;
  }

  async #leavesAround(leaf: number): Promise<LeavesOfPage> {
    const parent = (await this.#map.pathTo(leaf, this.#signal, 1)).at(-1);
    if (parent === undefined || 'runs' in parent.page || parent.page.level !== 1)
      return { firstBlock: 0, children: [] };
    return { firstBlock: parent.firstBlock, children: parent.page.children };
  }

  #prefetch({ firstBlock, children }: LeavesOfPage): Promise<void> {
    const leaves = children.map((ref) => ({ ref, level: 0, firstBlock: firstBlock + ref.child * leafBlocks }));
    return this.#pages.prefetch(this.#disk, leaves, this.#signal);
  }
}

/** In the order in which they lie, without gaps worth mentioning. */
function neighboursOf<Child extends RecordAddress>(children: readonly Child[], wanted: Child): readonly Child[] {
  const beside = children
    .filter((child) => segmentKey(child) === segmentKey(wanted))
    .sort((a, b) => a.offset - b.offset);
  let [first, last] = [beside.indexOf(wanted), beside.indexOf(wanted)];
  const spanOf = (from: number, to: number) => endOf(beside[to] ?? wanted) - (beside[from] ?? wanted).offset;
  const touches = (at: number) => (beside[at + 1]?.offset ?? 0) - endOf(beside[at] ?? wanted) <= leafGapBytesMax;
  while (first > 0 && touches(first - 1) && spanOf(first - 1, last) <= leavesBytesMax / 2) first -= 1;
  while (last < beside.length - 1 && touches(last) && spanOf(first, last + 1) <= leavesBytesMax) last += 1;
  return beside.slice(first, last + 1);
}

function endOf({ offset, length }: RecordAddress): number {
  return offset + length;
}
