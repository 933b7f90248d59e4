import { digestBytes, tagBytes } from '../crypto/suite.ts';
import { ByteReader, ByteWriter } from './encoding.ts';
import { compareSegments, type SegmentId, segmentKey } from './names.ts';
import { type Codec, parseCodec, type RecordAddress, segmentRecordsMax } from './segment.ts';

/** Pages of the block map: docs/format.md §7. */

export const fanOut = 64;
/** Blocks that a leaf covers; as many as an interior page has children. */
export const leafBlocks = 64;
const pageVersion = 1;

/** `count` blocks from disk block `first` on are blocks `inside`… of a data record that holds `recordBlocks` blocks. */
export interface Run {
  readonly first: number;
  readonly count: number;
  readonly at: RecordAddress;
  readonly codec: Codec;
  readonly inside: number;
  readonly recordBlocks: number;
  /** `count` digests of 16 bytes. */
  readonly digests: Uint8Array;
}

/** Where a page lies, with the digest of its sealed bytes. */
export interface PageRef extends RecordAddress {
  readonly digest: Uint8Array;
}

export interface ChildRef extends RecordAddress {
  /** Position in the page, 0 to 63. */
  readonly child: number;
  /** `null` while the child lies in the same, still unsealed segment. */
  readonly digest: Uint8Array | null;
}

export interface Leaf {
  readonly level: 0;
  readonly runs: readonly Run[];
}

export interface InnerPage {
  readonly level: number;
  readonly children: readonly (ChildRef & { readonly digest: Uint8Array })[];
}

/** Blocks covered by one page of this level. */
export function pageSpan(level: number): number {
  return leafBlocks * fanOut ** level;
}

/** The smallest root level that covers so many blocks. */
export function rootLevel(blockCount: number): number {
  let level = 0;
  while (pageSpan(level) < blockCount) level++;
  return level;
}

export function encodeLeaf(firstBlock: number, runs: readonly Run[]): Uint8Array {
  const table = new SegmentTable(runs.map((run) => run.at));
  const writer = table.encode(new ByteWriter().u8(pageVersion).u8(0)).varint(runs.length);
  let end = firstBlock;
  for (const run of runs) {
    writer
      .varint(run.first - end)
      .varint(run.count)
      .varint(table.indexOf(run.at));
    writer.varint(run.at.record).varint(run.at.offset).varint(run.at.length).u8(run.codec);
    writer.varint(run.inside).varint(run.recordBlocks).raw(run.digests);
    end = run.first + run.count;
  }
  return writer.finish();
}

/** `holes` are the places of digests that are not known yet; they hold zeros. */
export function encodeInner(
  level: number,
  children: readonly ChildRef[],
): { readonly bytes: Uint8Array; readonly holes: readonly { readonly at: number; readonly record: number }[] } {
  const table = new SegmentTable(children);
  const writer = table.encode(new ByteWriter().u8(pageVersion).u8(level));
  writer.mask64(children.reduce((mask, { child }) => mask | (1n << BigInt(child)), 0n));
  const holes: { at: number; record: number }[] = [];
  for (const child of children) {
    writer.varint(table.indexOf(child)).varint(child.record).varint(child.offset).varint(child.length);
    if (child.digest === null) holes.push({ at: writer.length, record: child.record });
    writer.raw(child.digest ?? new Uint8Array(digestBytes));
  }
  return { bytes: writer.finish(), holes };
}

/** Parses the page of this level that covers the blocks from `firstBlock` on. The digests are views of `bytes`, which must not change. */
export function parsePage(bytes: Uint8Array, level: number, firstBlock: number, object: string): Leaf | InnerPage {
  const reader = new ByteReader(object, bytes);
  if (reader.u8() !== pageVersion) throw reader.invalid('unknown page version', 0);
  const found = reader.u8();
  if (found !== level) throw reader.invalid(`a page of level ${found} where level ${level} belongs`, 1);
  const table = parseSegmentTable(reader);
  const used = new Set<number>();
  const page = level === 0 ? parseLeaf(reader, table, used, firstBlock) : parseInner(reader, table, used, level);
  if (used.size !== table.length) throw reader.invalid('a segment table with unused entries', 2);
  reader.end();
  return page;
}

function parseLeaf(reader: ByteReader, table: readonly SegmentId[], used: Set<number>, firstBlock: number): Leaf {
  const count = reader.count(8 + digestBytes);
  if (count === 0) throw reader.invalid('an empty leaf');
  const runs: Run[] = [];
  let end = firstBlock;
  for (let i = 0; i < count; i++) {
    const start = reader.offset;
    const run = parseRun(reader, table, used, end);
    const recordFirst = run.first - run.inside;
    if (recordFirst < firstBlock || recordFirst + run.recordBlocks > firstBlock + leafBlocks) {
      throw reader.invalid('a run of a record that lies outside this leaf', start);
    }
    const previous = runs.at(-1);
    if (previous !== undefined && continues(previous, run)) throw reader.invalid('two runs that should be one');
    runs.push(run);
    end = run.first + run.count;
  }
  return { level: 0, runs };
}

function parseRun(reader: ByteReader, table: readonly SegmentId[], used: Set<number>, end: number): Run {
  const start = reader.offset;
  const first = end + reader.varint();
  const count = reader.varint();
  const at = parseAddress(reader, table, used);
  const codec = parseCodec(reader);
  const inside = reader.varint();
  const recordBlocks = reader.varint();
  if (count === 0 || inside + count > recordBlocks || recordBlocks > leafBlocks)
    throw reader.invalid('a run that does not fit its record', start);
  return { first, count, at, codec, inside, recordBlocks, digests: reader.raw(count * digestBytes) };
}

function parseInner(reader: ByteReader, table: readonly SegmentId[], used: Set<number>, level: number): InnerPage {
  const mask = reader.mask64();
  if (mask === 0n) throw reader.invalid('an inner page without children');
  const children: (ChildRef & { readonly digest: Uint8Array })[] = [];
  for (let child = 0; child < fanOut; child++) {
    if ((mask & (1n << BigInt(child))) === 0n) continue;
    children.push({ child, ...parseAddress(reader, table, used), digest: reader.raw(digestBytes) });
  }
  return { level, children };
}

function parseAddress(reader: ByteReader, table: readonly SegmentId[], used: Set<number>): RecordAddress {
  const start = reader.offset;
  const index = reader.varint();
  const segment = table[index];
  if (segment === undefined) throw reader.invalid('a segment index outside the table', start);
  used.add(index);
  return { ...segment, ...parsePlace(reader) };
}

/** Record number, offset and stored length, as every reference writes them. */
export function parsePlace(reader: ByteReader): {
  readonly record: number;
  readonly offset: number;
  readonly length: number;
} {
  const start = reader.offset;
  const place = { record: reader.varint(), offset: reader.varint(), length: reader.varint() };
  if (place.record >= segmentRecordsMax) throw reader.invalid(`record number ${place.record}`, start);
  if (place.length < tagBytes) throw reader.invalid('a record shorter than a tag', start);
  return place;
}

/** True when `next` goes on where `run` ends, on the disk and inside the record. */
export function continues(run: Run, next: Run): boolean {
  return (
    next.first === run.first + run.count &&
    next.inside === run.inside + run.count &&
    next.at.record === run.at.record &&
    next.at.number === run.at.number &&
    next.at.tenure === run.at.tenure
  );
}

function parseSegmentTable(reader: ByteReader): readonly SegmentId[] {
  const table: SegmentId[] = [];
  const count = reader.count(2);
  for (let i = 0; i < count; i++) {
    const start = reader.offset;
    const id = { tenure: reader.varint(), number: reader.varint() };
    const previous = table.at(-1);
    if (previous !== undefined && compareSegments(previous, id) >= 0)
      throw reader.invalid('segments out of order', start);
    table.push(id);
  }
  return table;
}

/** The page's own list of segments, so that each reference needs one small index. */
class SegmentTable {
  readonly #indices = new Map<string, number>();
  readonly #sorted: readonly SegmentId[];

  constructor(ids: readonly SegmentId[]) {
    const unique = new Map(ids.map((id) => [segmentKey(id), id]));
    this.#sorted = [...unique.values()].sort(compareSegments);
    this.#sorted.forEach((id, index) => {
      this.#indices.set(segmentKey(id), index);
    });
  }

  encode(writer: ByteWriter): ByteWriter {
    writer.varint(this.#sorted.length);
    for (const { tenure, number } of this.#sorted) writer.varint(tenure).varint(number);
    return writer;
  }

  indexOf(id: SegmentId): number {
    return this.#indices.get(segmentKey(id)) ?? 0;
  }
}
