import type { KeyObject } from 'node:crypto';
import { zstdDecompressSync } from 'node:zlib';
import { DataKey } from '../crypto/data-key.ts';
import { CommitmentMismatch, RecordTampered } from '../crypto/errors.ts';
import { freeBytes } from '../crypto/free-bytes.ts';
import { blockDigest, digestBytes, prepareDigestKey } from '../crypto/suite.ts';
import type { FilePiece } from '../hypervisors/hypervisor.ts';
import {
  type Codec,
  codec,
  type RecordBinding,
  recordType,
  type SegmentHeader,
  SegmentMisplaced,
  SegmentOpener,
} from '../replica/segment.ts';

/** Opening a fetched range of one segment: a worker's task; plain data in, plain data out. */

/** Content that is not what the map says, or a frame that does not decompress: writer and reader disagree. */
export class ContentMismatch extends Error {
  readonly code = 'CONTENT_MISMATCH';
  override readonly name = 'ContentMismatch';
}

/** Blocks of one record that are wanted. */
export interface WantedRecord {
  readonly record: number;
  /** Offset of the sealed record in the fetched range. */
  readonly offset: number;
  readonly length: number;
  readonly codec: Codec;
  readonly recordFirstBlock: number;
  readonly recordBlocks: number;
  readonly pieces: readonly WantedPiece[];
}

export interface WantedPiece {
  /** First block inside the record. */
  readonly inside: number;
  readonly count: number;
  /** `count` digests of 16 bytes. */
  readonly digests: Uint8Array;
}

export interface OpenRangeTask {
  /** On shared memory: the main thread zeroes it for all. */
  readonly dataKey: Uint8Array;
  readonly digestKey: Uint8Array;
  readonly header: SegmentHeader;
  readonly preamble: Uint8Array;
  readonly object: string;
  readonly diskId: Uint8Array;
  readonly blockSize: number;
  readonly bytes: Uint8Array;
  readonly records: readonly WantedRecord[];
  /** Where the opened blocks go: onto shared memory, or straight into a file. */
  readonly into: Uint8Array | OutputFile;
}

/** Nothing is written at `capacityBytes` or beyond. */
export interface OutputFile {
  /** Disjoint; together they cover all that is to be written. */
  readonly pieces: readonly FilePiece[];
  readonly capacityBytes: number;
}

export interface OpenedPiece {
  readonly firstBlock: number;
  readonly bytes: Uint8Array;
}

/** Why one record could not be opened: what an error keeps of itself on its way out of a worker thread. */
export interface RecordFailure {
  readonly record: number;
  readonly code: RangeErrorCode;
  readonly message: string;
}

type RangeErrorCode = keyof typeof rangeErrors;
const rangeErrors = {
  COMMITMENT_MISMATCH: CommitmentMismatch,
  CONTENT_MISMATCH: ContentMismatch,
  RECORD_TAMPERED: RecordTampered,
  SEGMENT_MISPLACED: SegmentMisplaced,
};

/** What an error of the system keeps of itself on its way out of a worker thread. */
export interface SystemRefusal {
  readonly message: string;
  readonly code: string;
  readonly syscall: string;
}

export interface OpenedRange {
  /** On shared memory; none of what went into a file. */
  readonly pieces: readonly OpenedPiece[];
  readonly writtenBytes: number;
  /** Why the file took no more. */
  readonly refusal: SystemRefusal | null;
  /** Records of which nothing is in `pieces`. */
  readonly failures: readonly RecordFailure[];
}

/**
 * Nothing of a record is taken before its tag and every digest was checked; one that fails does not keep the others. The bytes of a
 * piece are gone when `take` returns.
 */
export function openRange(
  task: Omit<OpenRangeTask, 'into'>,
  take: (piece: OpenedPiece) => void,
): readonly RecordFailure[] {
  const failures: RecordFailure[] = [];
  const fail = (records: readonly WantedRecord[], error: unknown): void => {
    for (const { record } of records) failures.push({ record, code: codeOf(error), message: messageOf(error) });
  };
  using opener = openSegment(task, fail);
  const digestKey = prepareDigestKey(task.digestKey);
  if (opener === null) return failures;
  for (const record of task.records) {
    try {
      openWanted(task, opener, digestKey, record, take);
    } catch (error) {
      fail([record], error);
    }
  }
  return failures;
}

function openSegment(
  task: Omit<OpenRangeTask, 'into'>,
  fail: (records: readonly WantedRecord[], error: unknown) => void,
): SegmentOpener | null {
  try {
    return SegmentOpener.open(new DataKey(task.dataKey), task.header, task.preamble, task.object);
  } catch (error) {
    fail(task.records, error);
    return null;
  }
}

/** Rethrows what is no verdict on the stored bytes. */
function codeOf(error: unknown): RangeErrorCode {
  for (const [code, named] of Object.entries(rangeErrors))
    if (error instanceof named && isRangeError(code)) return code;
  throw error;
}

function isRangeError(code: string): code is RangeErrorCode {
  return Object.hasOwn(rangeErrors, code);
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The error again, outside of the worker: threads hand over an error without its class and its code. */
export function errorOf(failure: RecordFailure): Error {
  return new rangeErrors[failure.code](failure.message);
}

export function wholeRun({ inside, count, digests }: WantedPiece): WantedPiece {
  return { inside, count, digests };
}

function openWanted(
  task: Omit<OpenRangeTask, 'into'>,
  opener: SegmentOpener,
  digestKey: KeyObject,
  wanted: WantedRecord,
  take: (piece: OpenedPiece) => void,
): void {
  const plaintextLength = wanted.recordBlocks * task.blockSize;
  const binding: RecordBinding = {
    type: recordType.data,
    codec: wanted.codec,
    diskId: task.diskId,
    firstBlock: wanted.recordFirstBlock,
    blockCount: wanted.recordBlocks,
    blockSize: task.blockSize,
    plaintextLength,
  };
  const sealed = task.bytes.subarray(wanted.offset, wanted.offset + wanted.length);
  const where = `${task.object} record ${wanted.record}`;
  const body = opener.openBody(wanted.record, binding, sealed);
  const plaintext = expand(body, wanted.codec, plaintextLength, where);
  for (const piece of wanted.pieces) checkDigests(task, digestKey, piece, plaintext, where);
  for (const { inside, count } of wanted.pieces) {
    const bytes = plaintext.subarray(inside * task.blockSize, (inside + count) * task.blockSize);
    take({ firstBlock: wanted.recordFirstBlock + inside, bytes });
  }
  freeBytes(body);
  freeBytes(plaintext);
}

/** Less is refused by zlib. */
const chunkBytesMin = 64;

/** The plaintext of a body; throws ContentMismatch where it is not exactly `length` bytes. */
export function expand(body: Uint8Array, used: Codec, length: number, where: string): Uint8Array {
  const plaintext = used === codec.zstd ? decompress(body, length, where) : body;
  if (plaintext.length !== length)
    throw new ContentMismatch(`${where}: has ${plaintext.length} bytes instead of ${length}`);
  return plaintext;
}

function decompress(frame: Uint8Array, length: number, where: string): Uint8Array {
  try {
    return zstdDecompressSync(frame, { maxOutputLength: length, chunkSize: Math.max(length, chunkBytesMin) });
  } catch (cause) {
    throw new ContentMismatch(`${where}: its content does not decompress to ${length} bytes`, { cause });
  }
}

function checkDigests(
  task: Omit<OpenRangeTask, 'into'>,
  digestKey: KeyObject,
  piece: WantedPiece,
  plaintext: Uint8Array,
  where: string,
): void {
  for (let i = 0; i < piece.count; i++) {
    const at = (piece.inside + i) * task.blockSize;
    const digest = blockDigest(digestKey, plaintext.subarray(at, at + task.blockSize));
    const expected = piece.digests.subarray(i * digestBytes, (i + 1) * digestBytes);
    if (Buffer.compare(digest, expected) !== 0) {
      throw new ContentMismatch(`${where}: block ${piece.inside + i} of it is not the content that the map names`);
    }
  }
}
