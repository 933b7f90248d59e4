import { digestBytes, tagBytes } from '../../../crypto/suite.ts';
import { blockCountOf, type MapGeometry } from '../../../replica/block-map.ts';
import type { SegmentId } from '../../../replica/names.ts';
import {
  encodeInner,
  encodeLeaf,
  fanOut,
  leafBlocks,
  type PageRef,
  pageSpan,
  type Run,
  rootLevel,
} from '../../../replica/page.ts';
import { codec, segmentPreambleBytes } from '../../../replica/segment.ts';

/** Blocks in a segment of 8 MiB at 2.5:1, each a record of its own. */
const recordsPerSegment = 300;
const recordBytes = 26_000;
const pageBytes = 2_400;
/** A prime: pages of neighbours lie far from each other, too. */
const pageStride = 7_919;

export interface FragmentedPage {
  readonly level: number;
  /** Among the pages of its level. */
  readonly index: number;
}

/**
 * The map of a disk of which every block was written by itself, in no order: each lies in another segment than its neighbours. Nothing is
 * kept: all of it follows from the numbers of block and page, so a map of 2^26 blocks costs nothing until a page is asked for.
 * The number of blocks is a power of two.
 */
export class FragmentedMap {
  readonly geometry: MapGeometry;
  readonly blockCount: number;
  readonly level: number;
  readonly segmentCount: number;
  readonly pageCount: number;
  readonly #tenure: number;
  /** Number of a level's first page among all pages. */
  readonly #firstOfLevel: readonly number[];

  constructor(geometry: MapGeometry, tenure: number) {
    this.geometry = geometry;
    this.blockCount = blockCountOf(geometry);
    if (!Number.isInteger(Math.log2(this.blockCount))) throw new Error(`${this.blockCount} blocks: no power of two`);
    this.level = rootLevel(this.blockCount);
    this.segmentCount = Math.ceil(this.blockCount / recordsPerSegment);
    this.#tenure = tenure;
    const first = [0];
    for (let level = 0; level <= this.level; level++) first.push((first[level] ?? 0) + this.pagesOf(level));
    this.#firstOfLevel = first;
    this.pageCount = first.at(-1) ?? 0;
  }

  pagesOf(level: number): number {
    return Math.ceil(this.blockCount / pageSpan(level));
  }

  page(number: number): FragmentedPage {
    const level = this.#firstOfLevel.findLastIndex((first) => first <= number);
    return { level, index: number - (this.#firstOfLevel[level] ?? 0) };
  }

  /** The pages from the leaf of a block up to the root. */
  *pathOf(block: number): Generator<FragmentedPage> {
    for (let level = 0; level <= this.level; level++) yield { level, index: Math.floor(block / pageSpan(level)) };
  }

  encode({ level, index }: FragmentedPage): Uint8Array {
    const firstBlock = index * pageSpan(level);
    if (level === 0) return encodeLeaf(firstBlock, this.#runs(firstBlock));
    const below = Math.min(fanOut, this.pagesOf(level - 1) - index * fanOut);
    const children = Array.from({ length: below }, (_, child) => ({
      child,
      ...this.ref({ level: level - 1, index: index * fanOut + child }),
    }));
    return encodeInner(level, children).bytes;
  }

  /** `length` is a typical one: the page that a reader gets from the local state need not have it. */
  ref(page: FragmentedPage): PageRef {
    const number = this.numberOf(page);
    const inSegment = Math.floor(number / this.segmentCount);
    return {
      ...this.#segmentOfPage(number),
      record: recordsPerSegment + inSegment,
      offset: segmentPreambleBytes + recordsPerSegment * recordBytes + inSegment * pageBytes,
      length: pageBytes + tagBytes,
      digest: pseudoDigest(number, 'page'),
    };
  }

  numberOf({ level, index }: FragmentedPage): number {
    return (this.#firstOfLevel[level] ?? 0) + index;
  }

  /** Blocks and pages in each segment. */
  unitsBySegment(): readonly { readonly id: SegmentId; readonly units: number }[] {
    const pages = new Uint32Array(this.segmentCount + 1);
    for (let number = 0; number < this.pageCount; number++) {
      const { number: segment } = this.#segmentOfPage(number);
      pages[segment] = (pages[segment] ?? 0) + 1;
    }
    return Array.from({ length: this.segmentCount }, (_, i) => {
      const blocks = Math.min(recordsPerSegment, this.blockCount - i * recordsPerSegment);
      return { id: { tenure: this.#tenure, number: i + 1 }, units: blocks + (pages[i + 1] ?? 0) };
    });
  }

  #segmentOfPage(number: number): SegmentId {
    return { tenure: this.#tenure, number: 1 + ((number * pageStride) % this.segmentCount) };
  }

  #runs(firstBlock: number): readonly Run[] {
    const blocks = Math.min(leafBlocks, this.blockCount - firstBlock);
    return Array.from({ length: blocks }, (_, i) => this.#run(firstBlock + i));
  }

  #run(first: number): Run {
    const place = shuffled(first, this.blockCount);
    const record = place % recordsPerSegment;
    const at = {
      tenure: this.#tenure,
      number: 1 + Math.floor(place / recordsPerSegment),
      record,
      offset: segmentPreambleBytes + record * recordBytes,
      length: recordBytes - (place % 4096),
    };
    return {
      first,
      count: 1,
      at,
      codec: codec.zstd,
      inside: 0,
      recordBlocks: 1,
      digests: pseudoDigest(first, 'block'),
    };
  }
}

/** A permutation of the numbers below a power of two. */
function shuffled(value: number, powerOfTwo: number): number {
  const mask = powerOfTwo - 1;
  const half = Math.max(1, Math.floor(Math.log2(powerOfTwo) / 2));
  let mixed = value;
  for (const factor of [0x9e3779b1, 0x85ebca77, 0xc2b2ae3d]) {
    mixed = Math.imul(mixed, factor) & mask;
    mixed ^= mixed >>> half;
  }
  return mixed;
}

/** Looks like a digest: the same for the same number, without any order. */
function pseudoDigest(number: number, of: 'block' | 'page'): Uint8Array {
  const digest = new Uint8Array(digestBytes);
  let state = Math.imul(number + 1, 0x9e3779b1) ^ (of === 'page' ? 0x5bd1e995 : 0);
  for (let i = 0; i < digestBytes; i++) {
    state = Math.imul(state ^ (state >>> 15), 0x85ebca77);
    state = Math.imul(state ^ (state >>> 13), 0xc2b2ae3d) + number;
    digest[i] = state >>> 21;
  }
  return digest;
}
