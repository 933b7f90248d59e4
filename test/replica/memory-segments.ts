import type { MapGeometry, PageSource, PrefetchedPage } from '../../replica/block-map.ts';
import type { Birth } from '../../replica/control.ts';
import type { RecordPacker } from '../../replica/map-writer.ts';
import { type SegmentId, segmentKey } from '../../replica/names.ts';
import { fanOut, type PageRef, pageSpan, parsePage, type Run } from '../../replica/page.ts';
import {
  codec,
  type RecordAddress,
  recordType,
  type SealedSegment,
  SegmentOpener,
  sealSegment,
  segmentPreambleBytes,
  type UnsealedRecord,
} from '../../replica/segment.ts';
import { context, dataKey, filled } from './specimens.ts';

/** Really sealed segments, kept in memory: what a bucket would hold, and a page source that reads it. */
export class MemorySegments implements PageSource {
  readonly tenure: number;
  readonly sealed = new Map<string, SealedSegment>();
  #lastNumber = 0;
  prefetched = 0;

  constructor(tenure: number) {
    this.tenure = tenure;
  }

  nextId(): SegmentId {
    this.#lastNumber++;
    return { tenure: this.tenure, number: this.#lastNumber };
  }

  seal(id: SegmentId, records: readonly UnsealedRecord[]): Birth {
    using key = dataKey();
    // A stuck random generator is the worst case, and repeatable.
    const sealed = sealSegment(key, filled(32, 0x0a), { ...id, context }, records, { random: filled(32, 0x05) });
    this.sealed.set(segmentKey(id), sealed);
    const units = records.reduce((sum, { type, blockCount }) => sum + (type === recordType.data ? blockCount : 1), 0);
    return { tenure: id.tenure, number: id.number, size: sealed.bytes.length, units, sha256: sealed.sha256 };
  }

  async readPage(geometry: MapGeometry, ref: PageRef, level: number, firstBlock: number): Promise<Uint8Array> {
    const { bytes, pageDigests } = this.segment(ref);
    if (Buffer.compare(pageDigests.get(ref.record) ?? filled(1, 0), ref.digest) !== 0) throw new Error('another page');
    const { diskId, blockSize } = geometry;
    const plaintextLength = ref.length - 16;
    const binding = { type: recordType.page, codec: codec.stored, diskId, firstBlock, blockCount: pageSpan(level) };
    using opener = this.#open(ref, bytes);
    const sealed = bytes.subarray(ref.offset, ref.offset + ref.length);
    return opener.openBody(ref.record, { ...binding, blockSize, plaintextLength }, sealed);
  }

  async prefetch(_geometry: MapGeometry, pages: readonly PrefetchedPage[]): Promise<void> {
    this.prefetched += pages.length;
    if (pages.length > fanOut) throw new Error('more pages at once than a page has children');
  }

  /** The blocks of the record that a run lies in. */
  readRecord({ diskId, blockSize }: MapGeometry, run: Run): Uint8Array {
    const { bytes } = this.segment(run.at);
    const blocks = { firstBlock: run.first - run.inside, blockCount: run.recordBlocks, blockSize };
    const binding = { type: recordType.data, codec: run.codec, diskId, plaintextLength: run.recordBlocks * blockSize };
    using opener = this.#open(run.at, bytes);
    const sealed = bytes.subarray(run.at.offset, run.at.offset + run.at.length);
    return opener.openBody(run.at.record, { ...binding, ...blocks }, sealed);
  }

  segment(id: SegmentId): SealedSegment {
    const sealed = this.sealed.get(segmentKey(id));
    if (sealed === undefined) throw new Error(`segment ${segmentKey(id)} was never sealed`);
    return sealed;
  }

  #open(id: SegmentId, bytes: Uint8Array): SegmentOpener {
    using key = dataKey();
    const preamble = bytes.subarray(0, segmentPreambleBytes);
    return SegmentOpener.open(key, { tenure: id.tenure, number: id.number, context }, preamble, segmentKey(id));
  }
}

interface OpenSegment {
  readonly id: SegmentId;
  readonly records: UnsealedRecord[];
  offset: number;
}

/** Closes segments at a size so small that pages of one publish spread over several. */
export class MemoryPacker implements RecordPacker {
  readonly #segments: MemorySegments;
  readonly #segmentBytes: number;
  readonly #born: (birth: Birth) => void;
  #open: OpenSegment | null = null;

  constructor(segments: MemorySegments, segmentBytes: number, born: (birth: Birth) => void) {
    this.#segments = segments;
    this.#segmentBytes = segmentBytes;
    this.#born = born;
  }

  async room(bytes: number): Promise<SegmentId> {
    if (this.#open !== null && this.#open.offset + bytes > this.#segmentBytes) this.flush();
    this.#open ??= { id: this.#segments.nextId(), records: [], offset: segmentPreambleBytes };
    return this.#open.id;
  }

  add(record: UnsealedRecord): RecordAddress {
    if (this.#open === null) throw new Error('no room was asked for');
    const { id, records, offset } = this.#open;
    const at = { ...id, record: records.length, offset, length: record.body.length + 16 };
    records.push(record);
    this.#open.offset += at.length;
    return at;
  }

  async pageDigests(id: SegmentId): Promise<ReadonlyMap<number, Uint8Array>> {
    return this.#segments.segment(id).pageDigests;
  }

  flush(): void {
    const open = this.#open;
    this.#open = null;
    if (open !== null && open.records.length > 0) this.#born(this.#segments.seal(open.id, open.records));
  }
}

/** Parses a page as a reader would, for tests that look at its bytes. */
export async function pageBytes(
  segments: MemorySegments,
  geometry: MapGeometry,
  at: { readonly ref: PageRef; readonly level: number; readonly firstBlock: number },
): Promise<Uint8Array> {
  const bytes = await segments.readPage(geometry, at.ref, at.level, at.firstBlock);
  parsePage(bytes, at.level, at.firstBlock, 'a page');
  return bytes;
}
