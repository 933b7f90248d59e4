import type { KeyObject } from 'node:crypto';
import { readSync } from 'node:fs';
import { constants, zstdCompressSync } from 'node:zlib';
import { copyBytes } from '../../crypto/copy-bytes.ts';
import { freeBytes } from '../../crypto/free-bytes.ts';
import { blockDigest, digestBytes, prepareDigestKey } from '../../crypto/suite.ts';
import type { FilePiece } from '../../hypervisors/hypervisor.ts';
import { type Codec, codec } from '../../replica/segment.ts';
import { blockKind, isToRead } from './stretch.ts';

/** Read, digest, compare and compress one stretch. Runs in a worker thread; plain data in, plain data out. */

const recordBytesMax = 256 * 1024;
/** Compression that saves less than this is not worth the decompression. */
const worthwhileShare = 0.97;
/** Level 1 with a table of twice as many places: of a whole record it finds 0.7 % more, in 3 % less time. */
const hashLogMost = 15;
/** What is compressed of a record to see whether the whole of it would be worth it. */
const sampleBytes = 16 * 1024;

export interface SqueezeTask {
  /**
   * Room for the stretch's whole blocks, on shared memory. Without a `file` it holds them, the last one padded with zeros. The bodies
   * of the records replace them, from the start on.
   */
  readonly bytes: Uint8Array;
  readonly file: StretchFile | null;
  readonly blockSize: number;
  /** None is `untouched`. */
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

/** Where the worker reads the stretch by itself: piece after piece, so that what is read is still in the core's cache when it is used. */
export interface StretchFile {
  /** Ascending and disjoint; what none of them covers reads as zero. */
  readonly pieces: readonly FilePiece[];
  /** Of the stretch's first byte, on the disk. */
  readonly offset: number;
  /** To the end of the stretch, or of the disk: what lies beyond reads as zero. */
  readonly length: number;
}

/**
 * What becomes of a block. A spot check finds it `verified`, or a `mismatch`: it is not what the newest point has. Nor may it be where
 * compaction stores it again, which makes it `changed`.
 */
export const outcome = {
  zero: 1,
  unchanged: 2,
  journaled: 3,
  changed: 4,
  verified: 5,
  mismatch: 6,
} as const;

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

/** Null: the file could not be read. Whoever owns it knows how to say why. */
export function squeeze(task: SqueezeTask): Squeezed | null {
  const count = task.kinds.length;
  const squeezed = { outcomes: new Uint8Array(count), digests: new Uint8Array(count * digestBytes), records: [] };
  const key = prepareDigestKey(task.digestKey);
  const packed: Packed = { records: squeezed.records, end: 0, sampleFirst: false };
  const pieceBlocks = Math.max(1, recordBytesMax / task.blockSize);
  for (let first = 0; first < count; first += pieceBlocks) {
    const end = Math.min(first + pieceBlocks, count);
    const piece = readPiece(task, first, end);
    if (piece === null) return null;
    for (let i = first; i < end; i++) {
      const block = piece.subarray((i - first) * task.blockSize, (i - first + 1) * task.blockSize);
      squeezed.outcomes[i] = judgeBlock(task, key, i, block, squeezed.digests);
    }
    compressRuns(task, squeezed.outcomes, { first, end, bytes: piece }, packed);
  }
  return squeezed;
}

/** The same for every piece of a thread. */
let piecesBytes = new Uint8Array();

/** The plaintext of some blocks; of those that are not to be read, anything. */
function readPiece({ bytes, file, blockSize, kinds }: SqueezeTask, first: number, end: number): Uint8Array | null {
  if (file === null) return bytes.subarray(first * blockSize, end * blockSize);
  if (piecesBytes.length < (end - first) * blockSize) piecesBytes = new Uint8Array((end - first) * blockSize);
  const piece = piecesBytes.subarray(0, (end - first) * blockSize);
  for (let from = first; from < end; from++) {
    let to = from;
    while (to < end && isToRead(kinds[to])) to++;
    if (to === from) continue;
    const inside = Math.max(0, Math.min(to * blockSize, file.length) - from * blockSize);
    const blocks = piece.subarray((from - first) * blockSize, (to - first) * blockSize);
    if (!readFully(file, from * blockSize, blocks.subarray(0, inside))) return null;
    blocks.fill(0, inside);
    from = to;
  }
  return piece;
}

function readFully({ pieces, offset }: StretchFile, at: number, into: Uint8Array): boolean {
  const start = offset + at;
  let filled = 0;
  try {
    for (const piece of pieces) {
      const from = Math.max(start, piece.at);
      const to = Math.min(start + into.length, piece.at + piece.length);
      if (from >= to) continue;
      into.fill(0, filled, from - start);
      filled = to - start;
      for (let done = from - start; done < filled; ) {
        const count = readSync(piece.fd, into, done, filled - done, piece.offset + start + done - piece.at);
        if (count === 0) return false;
        done += count;
      }
    }
    into.fill(0, filled);
    return true;
  } catch {
    // Not swallowed: the owner of the file reads the stretch again, and says what is wrong with it.
    return false;
  }
}

function judgeBlock(task: SqueezeTask, key: KeyObject, i: number, block: Uint8Array, digests: Uint8Array): number {
  if (task.kinds[i] === blockKind.verify) return verifyBlock(task, key, i, block);
  const mustMatch = task.kinds[i] === blockKind.resend;
  if (task.kinds[i] === blockKind.zero || (!mustMatch && isZero(block))) return outcome.zero;
  const digest = blockDigest(key, block);
  digests.set(digest, i * digestBytes);
  const isKnown = task.known[i] === 1 && equalsAt(task.knownDigests, i, digest);
  if (mustMatch && !isKnown) return outcome.mismatch;
  if (!mustMatch && isKnown) return outcome.unchanged;
  if (task.journaled[i] === 1 && equalsAt(task.journaledDigests, i, digest)) return outcome.journaled;
  return outcome.changed;
}

/** A block that the map does not have has to read as zero. */
function verifyBlock(task: SqueezeTask, key: KeyObject, i: number, block: Uint8Array): number {
  const asKnown = task.known[i] === 1 ? equalsAt(task.knownDigests, i, blockDigest(key, block)) : isZero(block);
  return asKnown ? outcome.verified : outcome.mismatch;
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

/** The bodies so far, one after the other from the start of the task's bytes on. */
interface Packed {
  readonly records: SqueezedRecord[];
  end: number;
  /** What did not compress is seldom alone: the next record has to show first that it does. */
  sampleFirst: boolean;
}

interface Piece {
  readonly first: number;
  readonly end: number;
  readonly bytes: Uint8Array;
}

/** Consecutive changed blocks of a piece become one record. No body is longer than its plaintext, so each finds room before the next piece. */
function compressRuns(task: SqueezeTask, outcomes: Uint8Array, piece: Piece, packed: Packed): void {
  for (let first = piece.first; first < piece.end; first++) {
    let end = first;
    while (end < piece.end && outcomes[end] === outcome.changed) end++;
    if (end === first) continue;
    const from = (first - piece.first) * task.blockSize;
    const plaintext = piece.bytes.subarray(from, from + (end - first) * task.blockSize);
    packed.records.push({ first, count: end - first, ...compressRun(task, plaintext, packed) });
    first = end;
  }
}

function compressRun(task: SqueezeTask, plaintext: Uint8Array, packed: Packed): Pick<SqueezedRecord, 'codec' | 'body'> {
  const place = (bytes: Uint8Array): Uint8Array => {
    const body = task.bytes.subarray(packed.end, packed.end + bytes.length);
    copyBytes(bytes, body, 0);
    packed.end += bytes.length;
    return body;
  };
  const hopeless = task.compressionLevel === 0 || (packed.sampleFirst && !sampleCompresses(task, plaintext));
  if (hopeless) return { codec: codec.stored, body: place(plaintext) };
  const frame = compress(plaintext, task.compressionLevel);
  const worthwhile = isWorthwhile(frame, plaintext);
  packed.sampleFirst = !worthwhile;
  const body = place(worthwhile ? frame : plaintext);
  freeBytes(frame);
  return { codec: worthwhile ? codec.zstd : codec.stored, body };
}

/** Looks at the middle: a file's start is not like the rest of it. */
function sampleCompresses({ compressionLevel }: SqueezeTask, plaintext: Uint8Array): boolean {
  const from = Math.max(0, (plaintext.length - sampleBytes) >> 1);
  const sample = plaintext.subarray(from, from + sampleBytes);
  return isWorthwhile(compress(sample, compressionLevel), sample);
}

function isWorthwhile(frame: Uint8Array, plaintext: Uint8Array): boolean {
  return frame.length < plaintext.length * worthwhileShare;
}

function compress(plaintext: Uint8Array, level: number): Uint8Array {
  const largeTable =
    level === 1 && plaintext.length >= recordBytesMax ? { [constants.ZSTD_c_hashLog]: hashLogMost } : {};
  return zstdCompressSync(plaintext, {
    params: { [constants.ZSTD_c_compressionLevel]: level, [constants.ZSTD_c_contentSizeFlag]: 1, ...largeTable },
    // Room for all of it: smaller chunks would be put together by copying them.
    chunkSize: plaintext.length + (plaintext.length >> 7) + 1024,
  });
}
