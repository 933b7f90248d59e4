import type { KeyObject } from 'node:crypto';
import { constants, zstdCompressSync } from 'node:zlib';
import { freeBytes } from '../../crypto/free-bytes.ts';
import { blockDigest, digestBytes, prepareDigestKey } from '../../crypto/suite.ts';
import { type Codec, codec } from '../../replica/segment.ts';
import { blockKind } from './stretch.ts';

/** Digest, compare and compress one stretch. Runs in a worker thread; plain data in, plain data out. */

const recordBytesMax = 256 * 1024;
/** Compression that saves less than this is not worth the decompression. */
const worthwhileShare = 0.97;

export interface SqueezeTask {
  /** Whole blocks, the last one padded with zeros; on shared memory. The bodies of the records replace them, from the start on. */
  readonly bytes: Uint8Array;
  readonly blockSize: number;
  readonly kinds: Uint8Array;
  /** Digests in the newest point, 16 bytes a block; `known` says where there is one. */
  readonly knownDigests: Uint8Array;
  readonly known: Uint8Array;
  /** Digests of what an interrupted run has uploaded already. */
  readonly journaledDigests: Uint8Array;
  readonly journaled: Uint8Array;
  readonly digestKey: Uint8Array;
  /** Of zstd; 0: nothing is compressed. */
  readonly compressionLevel: number;
}

/** What becomes of a block. */
export const outcome = { untouched: 0, zero: 1, unchanged: 2, journaled: 3, changed: 4 } as const;

export interface SqueezedRecord {
  /** Position in the stretch. */
  readonly first: number;
  readonly count: number;
  readonly codec: Codec;
  /** Lies in the task's bytes. */
  readonly body: Uint8Array;
}

export interface Squeezed {
  readonly outcomes: Uint8Array;
  /** 16 bytes a block; zeros where there is no content. */
  readonly digests: Uint8Array;
  readonly records: readonly SqueezedRecord[];
}

export function squeeze(task: SqueezeTask): Squeezed {
  const count = task.kinds.length;
  const outcomes = new Uint8Array(count);
  const digests = new Uint8Array(count * digestBytes);
  const key = prepareDigestKey(task.digestKey);
  for (let i = 0; i < count; i++) outcomes[i] = judgeBlock(task, key, i, digests);
  return { outcomes, digests, records: compressRuns(task, outcomes) };
}

function judgeBlock(task: SqueezeTask, key: KeyObject, i: number, digests: Uint8Array): number {
  if (task.kinds[i] === blockKind.untouched) return outcome.untouched;
  if (task.kinds[i] === blockKind.zero) return outcome.zero;
  const block = task.bytes.subarray(i * task.blockSize, (i + 1) * task.blockSize);
  if (isZero(block)) return outcome.zero;
  const digest = blockDigest(key, block);
  digests.set(digest, i * digestBytes);
  if (task.known[i] === 1 && equalsAt(task.knownDigests, i, digest)) return outcome.unchanged;
  if (task.journaled[i] === 1 && equalsAt(task.journaledDigests, i, digest)) return outcome.journaled;
  return outcome.changed;
}

function equalsAt(digests: Uint8Array, i: number, digest: Uint8Array): boolean {
  return Buffer.compare(digests.subarray(i * digestBytes, (i + 1) * digestBytes), digest) === 0;
}

let zeros = new Uint8Array();

function isZero(block: Uint8Array): boolean {
  if (block[0] !== 0 || block[block.length - 1] !== 0) return false;
  if (zeros.length !== block.length) zeros = new Uint8Array(block.length);
  return Buffer.compare(block, zeros) === 0;
}

/**
 * Consecutive changed blocks become one record, up to the size limit. No body is longer than its plaintext, so each finds room
 * before what is not compressed yet.
 */
function compressRuns(task: SqueezeTask, outcomes: Uint8Array): readonly SqueezedRecord[] {
  const blocksMax = Math.max(1, recordBytesMax / task.blockSize);
  const records: SqueezedRecord[] = [];
  let end = 0;
  for (let first = 0; first < outcomes.length; ) {
    let count = 0;
    while (count < blocksMax && outcomes[first + count] === outcome.changed) count++;
    if (count > 0) {
      const record = compressRun(task, first, count, end);
      records.push(record);
      end += record.body.length;
    }
    first += Math.max(1, count);
  }
  return records;
}

function compressRun(task: SqueezeTask, first: number, count: number, at: number): SqueezedRecord {
  const plaintext = task.bytes.subarray(first * task.blockSize, (first + count) * task.blockSize);
  const place = (bytes: Uint8Array): Uint8Array => {
    const body = task.bytes.subarray(at, at + bytes.length);
    body.set(bytes);
    return body;
  };
  if (task.compressionLevel === 0) return { first, count, codec: codec.stored, body: place(plaintext) };
  const frame = zstdCompressSync(plaintext, {
    params: { [constants.ZSTD_c_compressionLevel]: task.compressionLevel, [constants.ZSTD_c_contentSizeFlag]: 1 },
    // Room for all of it: smaller chunks would be put together by copying them.
    chunkSize: plaintext.length + (plaintext.length >> 7) + 1024,
  });
  const worthwhile = frame.length < plaintext.length * worthwhileShare;
  const body = place(worthwhile ? frame : plaintext);
  freeBytes(frame);
  return { first, count, codec: worthwhile ? codec.zstd : codec.stored, body };
}
