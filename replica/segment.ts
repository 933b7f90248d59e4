import type { DataKey } from '../crypto/data-key.ts';
import type { KeyContext } from '../crypto/key-provider.ts';
import {
  checkCommitment,
  commitmentBytes,
  digestBytes,
  hedgedSalt,
  openRecord,
  pageDigest,
  type SealingKeys,
  saltBytes,
  sealingKeys,
  sealRecordInto,
  sha256,
  suite,
  tagBytes,
} from '../crypto/suite.ts';
import { ByteReader, ByteWriter, toHex } from './encoding.ts';
import type { SegmentId } from './names.ts';

/** Segments: docs/format.md §6. One stored object that holds many sealed records. */

export const recordType = { data: 1, page: 2, attachment: 3, footer: 4 } as const;
export type RecordType = (typeof recordType)[keyof typeof recordType];
export const codec = { stored: 0, zstd: 1 } as const;
export type Codec = (typeof codec)[keyof typeof codec];

export const segmentRecordsMax = 4096;
const headerBytes = 96;
/** Header and commitment: what a reader needs before it can open any record. */
export const segmentPreambleBytes = headerBytes + commitmentBytes;
const trailerBytes = 12;
/** No footer is longer: 4096 records of at most 96 bytes and a table of 256 disks. */
const footerBytesMax = 512 * 1024;
/** The largest body: one block of 1 MiB. */
const bodyBytesMax = 2 ** 20;
const saltOffset = headerBytes - saltBytes;
const footerRecordNumber = 0xffffffff;
const noDisk = new Uint8Array(16);

/** Bytes that a segment takes at most when it is closed as soon as its records reach `segmentBytes`. */
export function segmentBytesMax(segmentBytes: number): number {
  return segmentBytes + bodyBytesMax + footerBytesMax + 2 * tagBytes + trailerBytes;
}

/** What a record's tag is bound to, besides its segment and number. */
export interface RecordBinding {
  readonly type: RecordType;
  readonly codec: Codec;
  /** 16 bytes; zeros where the record belongs to no disk. */
  readonly diskId: Uint8Array;
  readonly firstBlock: number;
  readonly blockCount: number;
  readonly blockSize: number;
  readonly plaintextLength: number;
}

/** A record before it is sealed. */
export interface UnsealedRecord extends RecordBinding {
  readonly body: Uint8Array;
  /** Of each block, for data records; empty otherwise. */
  readonly digests: Uint8Array;
  /** Where in `body` the digest of an earlier record of the same segment has to be filled in. */
  readonly childDigests: readonly { readonly at: number; readonly record: number }[];
}

/** Where a sealed record lies. `length` includes the tag. */
export interface RecordAddress extends SegmentId {
  readonly record: number;
  readonly offset: number;
  readonly length: number;
}

export interface SegmentHeader extends SegmentId {
  readonly context: KeyContext;
}

export interface SealedSegment {
  readonly bytes: Uint8Array;
  readonly sha256: Uint8Array;
  /** Digest of each page record, by record number. */
  readonly pageDigests: ReadonlyMap<number, Uint8Array>;
}

export interface SealOptions {
  /** Where the segment is made. Bodies may lie in it already, each at the offset of its record: they are sealed in place. */
  readonly into?: Uint8Array;
  /** Only for reproducible vectors. */
  readonly random?: Uint8Array;
}

/** Seals the records in order. Deterministic but for `random`; a segment is sealed exactly once, retries send the same bytes. */
export function sealSegment(
  key: DataKey,
  saltKey: Uint8Array,
  header: SegmentHeader,
  records: readonly UnsealedRecord[],
  { into, random }: SealOptions = {},
): SealedSegment {
  if (records.length > segmentRecordsMax) throw new Error(`${records.length} records in one segment`);
  const footer = encodeFooter(records);
  const unsalted = encodeHeader(header, new Uint8Array(saltBytes));
  const hashes = [...records.map((record) => sha256(record.body)), sha256(footer)];
  const salt = hedgedSalt(saltKey, 'failkit/v1/segment-salt', unsalted, hashes, random);
  const headerWithSalt = encodeHeader(header, salt);
  using keys = sealingKeys(key, header.context, 'failkit/v1/segment', headerWithSalt);

  const bodiesBytes = records.reduce((sum, record) => sum + record.body.length + tagBytes, 0);
  const length = segmentPreambleBytes + bodiesBytes + footer.length + tagBytes + trailerBytes;
  const bytes = into === undefined ? new Uint8Array(length) : into.subarray(0, length);
  if (bytes.length !== length) throw new Error(`a segment of ${length} bytes does not fit into ${bytes.length}`);
  bytes.set(headerWithSalt, 0);
  bytes.set(keys.commitment, headerBytes);
  const pageDigests = new Map<number, Uint8Array>();
  let at = segmentPreambleBytes;
  records.forEach((record, number) => {
    for (const child of record.childDigests) record.body.set(digestOf(pageDigests, child.record), child.at);
    const end = at + sealRecordInto(bytes.subarray(at), keys, number, encodeBinding(record, number), record.body);
    if (record.type === recordType.page) pageDigests.set(number, pageDigest(bytes.subarray(at, end)));
    at = end;
  });
  at += sealRecordInto(
    bytes.subarray(at),
    keys,
    footerRecordNumber,
    encodeBinding(footerBinding(records.length, footer.length), footerRecordNumber),
    footer,
  );
  bytes.set(encodeTrailer(footer.length + tagBytes, records.length), at);
  return { bytes, sha256: sha256(bytes), pageDigests };
}

function digestOf(digests: ReadonlyMap<number, Uint8Array>, record: number): Uint8Array {
  const digest = digests.get(record);
  if (digest === undefined)
    throw new Error(`a page refers to record ${record}, which is no earlier page of its segment`);
  return digest;
}

/** The opened preamble of a segment: opens its records in any order. Dispose it to zero the keys. */
export class SegmentOpener implements Disposable {
  readonly id: SegmentId;
  readonly object: string;
  readonly #keys: SealingKeys;

  private constructor(id: SegmentId, object: string, keys: SealingKeys) {
    this.id = id;
    this.object = object;
    this.#keys = keys;
  }

  /** Checks that this is the segment that `expected` names and that `key` is its data key, before anything is decrypted. */
  static open(key: DataKey, expected: SegmentHeader, preamble: Uint8Array, object: string): SegmentOpener {
    const found = parseSegmentHeader(preamble, object);
    if (found.tenure !== expected.tenure || found.number !== expected.number) {
      throw new SegmentMisplaced(`${object}: holds segment ${found.tenure}.${found.number}: the object was swapped`);
    }
    const { repositoryId, machineId } = expected.context;
    if (!Buffer.from(found.context.repositoryId).equals(repositoryId)) {
      throw new SegmentMisplaced(`${object}: belongs to repository ${toHex(found.context.repositoryId)}`);
    }
    if (!Buffer.from(found.context.machineId).equals(machineId)) {
      throw new SegmentMisplaced(`${object}: belongs to machine ${toHex(found.context.machineId)}`);
    }
    const keys = sealingKeys(key, expected.context, 'failkit/v1/segment', preamble.subarray(0, headerBytes));
    checkCommitment(keys, preamble.subarray(headerBytes, segmentPreambleBytes), object);
    return new SegmentOpener(expected, object, keys);
  }

  /** The body, after its tag was verified. */
  openBody(record: number, binding: RecordBinding, sealed: Uint8Array): Uint8Array {
    return openRecord(this.#keys, record, encodeBinding(binding, record), sealed, `${this.object} record ${record}`);
  }

  /** The footer of a whole segment: what its records are, for rebuilding a map. */
  openFooter(segment: Uint8Array): readonly FooterRecord[] {
    const { footerLength, recordCount } = parseTrailer(segment, this.object);
    const at = segment.length - trailerBytes - footerLength;
    if (at < segmentPreambleBytes)
      throw new ByteReader(this.object, segment).invalid(
        'a footer longer than the segment',
        segment.length - trailerBytes,
      );
    const sealed = segment.subarray(at, at + footerLength);
    const binding = footerBinding(recordCount, footerLength - tagBytes);
    const footer = openRecord(
      this.#keys,
      footerRecordNumber,
      encodeBinding(binding, footerRecordNumber),
      sealed,
      `${this.object} footer`,
    );
    return parseFooter(footer, recordCount, at, this.object);
  }

  [Symbol.dispose](): void {
    this.#keys[Symbol.dispose]();
  }
}

/** A whole object stands where another one belongs. */
export class SegmentMisplaced extends Error {
  readonly code = 'SEGMENT_MISPLACED';
  override readonly name = 'SegmentMisplaced';
}

export interface FooterRecord extends RecordBinding {
  readonly record: number;
  readonly offset: number;
  readonly length: number;
  readonly digests: Uint8Array;
}

export function parseSegmentHeader(preamble: Uint8Array, object: string): SegmentHeader {
  const reader = new ByteReader(object, preamble);
  reader.expectAscii('FKSG');
  reader.expectU16(1, 'version');
  reader.expectU16(suite, 'suite');
  const repositoryId = reader.raw(16);
  const machineId = reader.raw(16);
  const tenure = reader.u64();
  const number = reader.u32();
  const epoch = reader.u32();
  if (reader.u32() !== 0) throw reader.invalid('unknown flags', reader.offset - 4);
  if (reader.u32() !== 0) throw reader.invalid('a reserved field that is not zero', reader.offset - 4);
  reader.raw(saltBytes + commitmentBytes);
  return { tenure, number, context: { repositoryId, machineId, epoch } };
}

function encodeHeader(header: SegmentHeader, salt: Uint8Array): Uint8Array {
  const writer = new ByteWriter()
    .ascii('FKSG')
    .u16(1)
    .u16(suite)
    .raw(header.context.repositoryId)
    .raw(header.context.machineId);
  const bytes = writer.u64(header.tenure).u32(header.number).u32(header.context.epoch).u32(0).u32(0).raw(salt).finish();
  if (bytes.length !== headerBytes || saltOffset + salt.length !== headerBytes)
    throw new Error('segment header of a wrong length');
  return bytes;
}

/** The additional authenticated data of a record, 42 bytes. */
function encodeBinding(binding: RecordBinding, record: number): Uint8Array {
  return new ByteWriter()
    .u8(binding.type)
    .u8(binding.codec)
    .raw(binding.diskId)
    .u32(record)
    .u64(binding.firstBlock)
    .u32(binding.blockCount)
    .u32(binding.blockSize)
    .u32(binding.plaintextLength)
    .finish();
}

function footerBinding(recordCount: number, length: number): RecordBinding {
  return {
    type: recordType.footer,
    codec: codec.stored,
    diskId: noDisk,
    firstBlock: 0,
    blockCount: recordCount,
    blockSize: 0,
    plaintextLength: length,
  };
}

function encodeTrailer(footerLength: number, recordCount: number): Uint8Array {
  return new ByteWriter().u32(footerLength).u32(recordCount).ascii('GSKF').finish();
}

function parseTrailer(segment: Uint8Array, object: string): { footerLength: number; recordCount: number } {
  const at = segment.length - trailerBytes;
  if (at < segmentPreambleBytes) throw new ByteReader(object, segment).invalid('the object ends early', segment.length);
  const reader = new ByteReader(object, segment);
  reader.raw(at);
  const footerLength = reader.u32();
  const recordCount = reader.u32();
  reader.expectAscii('GSKF');
  if (footerLength < tagBytes) throw reader.invalid('a footer shorter than a tag', at);
  if (recordCount === 0 || recordCount > segmentRecordsMax) throw reader.invalid(`${recordCount} records`, at + 4);
  return { footerLength, recordCount };
}

function encodeFooter(records: readonly UnsealedRecord[]): Uint8Array {
  const disks = new Map<string, { readonly id: Uint8Array; readonly index: number }>();
  for (const { diskId } of records) {
    if (!disks.has(toHex(diskId))) disks.set(toHex(diskId), { id: diskId, index: disks.size });
  }
  const writer = new ByteWriter().u8(1).varint(disks.size);
  for (const { id } of disks.values()) writer.raw(id);
  writer.varint(records.length);
  for (const record of records) {
    const index = disks.get(toHex(record.diskId))?.index ?? 0;
    writer
      .u8(record.type)
      .u8(record.codec)
      .varint(index)
      .varint(record.firstBlock)
      .varint(record.blockCount)
      .varint(record.blockSize);
    writer.varint(record.body.length + tagBytes).raw(record.digests);
    if (record.type === recordType.attachment) writer.varint(record.plaintextLength);
  }
  return writer.finish();
}

function parseFooter(
  footer: Uint8Array,
  recordCount: number,
  recordsEnd: number,
  object: string,
): readonly FooterRecord[] {
  const reader = new ByteReader(`${object} footer`, footer);
  if (reader.u8() !== 1) throw reader.invalid('unknown footer version', 0);
  const disks = Array.from({ length: reader.count(16) }, () => reader.raw(16));
  if (new Set(disks.map(toHex)).size !== disks.length) throw reader.invalid('a disk that is listed twice');
  if (reader.varint() !== recordCount) throw reader.invalid('a record count that differs from the trailer');
  let offset = segmentPreambleBytes;
  const used = new Set<Uint8Array>();
  const records = Array.from({ length: recordCount }, (_, record) => {
    const start = reader.offset;
    const parsed = parseFooterRecord(reader, disks, record, offset);
    if (parsed.diskId !== disks[used.size] && !used.has(parsed.diskId))
      throw reader.invalid('a disk table that is not in order of first use', start);
    used.add(parsed.diskId);
    offset += parsed.length;
    return parsed;
  });
  if (used.size !== disks.length) throw reader.invalid('a disk table with unused entries');
  if (offset !== recordsEnd) throw reader.invalid('stored lengths that do not add up to the segment');
  reader.end();
  return records;
}

function parseFooterRecord(
  reader: ByteReader,
  disks: readonly Uint8Array[],
  record: number,
  offset: number,
): FooterRecord {
  const type = parseRecordType(reader);
  const recordCodec = parseCodec(reader);
  if (type === recordType.page && recordCodec !== codec.stored)
    throw reader.invalid('a page with a codec', reader.offset - 1);
  const start = reader.offset;
  const diskId = disks[reader.varint()];
  if (diskId === undefined) throw reader.invalid('a disk index outside the table', start);
  const firstBlock = reader.varint();
  const blockCount = reader.varint();
  const blockSize = reader.varint();
  const length = reader.varint();
  if (length < tagBytes) throw reader.invalid('a record shorter than a tag');
  const digests = reader.raw(type === recordType.data ? blockCount * digestBytes : 0);
  const place = { record, offset, length };
  const plaintextLength = plaintextLengthOf(type, reader, blockCount * blockSize, length);
  return { type, codec: recordCodec, diskId, firstBlock, blockCount, blockSize, plaintextLength, ...place, digests };
}

function plaintextLengthOf(type: RecordType, reader: ByteReader, blocksBytes: number, length: number): number {
  if (type === recordType.data) return blocksBytes;
  return type === recordType.attachment ? reader.varint() : length - tagBytes;
}

function parseRecordType(reader: ByteReader): RecordType {
  const value = reader.u8();
  if (value !== recordType.data && value !== recordType.page && value !== recordType.attachment) {
    throw reader.invalid(`unknown record type ${value}`, reader.offset - 1);
  }
  return value;
}

export function parseCodec(reader: ByteReader): Codec {
  const value = reader.u8();
  if (value !== codec.stored && value !== codec.zstd) throw reader.invalid(`unknown codec ${value}`, reader.offset - 1);
  return value;
}
