import { copyBytes } from '../../crypto/copy-bytes.ts';
import { tagBytes } from '../../crypto/suite.ts';
import type { RecordPacker } from '../../replica/map-writer.ts';
import { type SegmentId, segmentKey } from '../../replica/names.ts';
import {
  type RecordAddress,
  recordType,
  segmentPreambleBytes,
  segmentRecordsMax,
  type UnsealedRecord,
} from '../../replica/segment.ts';

/** Seals a full segment and makes it durable; resolves with its pages' digests once it is sealed. */
export interface SegmentStore {
  /** Where a segment is made; `store` takes it back. */
  takeSlot(): Uint8Array;
  /** Waits while too many segments are in flight; then resolves at once, with the digests to come. */
  store(
    id: SegmentId,
    records: readonly UnsealedRecord[],
    slot: Uint8Array,
  ): Promise<{ readonly pageDigests: Promise<ReadonlyMap<number, Uint8Array>> }>;
}

/** Digests of the pages of closed segments, by segment; shared by all packers of a run. */
export type SealedPages = Map<string, Promise<ReadonlyMap<number, Uint8Array>>>;

interface OpenSegment {
  readonly id: SegmentId;
  readonly records: UnsealedRecord[];
  /** Holds each body where its record will lie. */
  readonly slot: Uint8Array;
  offset: number;
}

/** Fills segments in the order of `add`: closed at `segmentBytes` or more. */
export class SegmentPacker implements RecordPacker {
  readonly #next: () => SegmentId;
  readonly #segmentBytes: number;
  readonly #store: SegmentStore;
  readonly #sealedPages: SealedPages;
  #open: OpenSegment | null = null;

  constructor(next: () => SegmentId, segmentBytes: number, store: SegmentStore, sealedPages: SealedPages) {
    this.#next = next;
    this.#segmentBytes = segmentBytes;
    this.#store = store;
    this.#sealedPages = sealedPages;
  }

  /** A segment takes what fits and one record more, so that each but the last has `segmentBytes` at least. */
  async room(_bytes: number, signal: AbortSignal): Promise<SegmentId> {
    signal.throwIfAborted();
    const full =
      this.#open !== null &&
      (this.#open.offset >= this.#segmentBytes || this.#open.records.length >= segmentRecordsMax);
    if (full) await this.flush();
    this.#open ??= { id: this.#next(), records: [], slot: this.#store.takeSlot(), offset: segmentPreambleBytes };
    return this.#open.id;
  }

  /** The body is copied. */
  add(record: UnsealedRecord): RecordAddress {
    const open = this.#open;
    if (open === null) throw new Error('no room was asked for');
    const body = open.slot.subarray(open.offset, open.offset + record.body.length);
    copyBytes(record.body, body, 0);
    const at = { ...open.id, record: open.records.length, offset: open.offset, length: record.body.length + tagBytes };
    open.records.push({ ...record, body });
    open.offset += at.length;
    return at;
  }

  async pageDigests(id: SegmentId): Promise<ReadonlyMap<number, Uint8Array>> {
    const digests = this.#sealedPages.get(segmentKey(id));
    if (digests === undefined) throw new Error(`segment ${segmentKey(id)} was not closed`);
    return await digests;
  }

  /** Closes the open segment, if it holds anything. */
  async flush(): Promise<void> {
    const open = this.#open;
    this.#open = null;
    if (open === null || open.records.length === 0) return;
    const { pageDigests } = await this.#store.store(open.id, open.records, open.slot);
    if (open.records.some((record) => record.type === recordType.page))
      this.#sealedPages.set(segmentKey(open.id), pageDigests);
  }
}
