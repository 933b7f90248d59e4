import {
  chunk,
  chunkFlagDone,
  requestHeaderBytes,
  requestMagic,
  simpleReplyMagic,
  structuredReplyMagic,
} from '../nbd-wire.ts';
import { allocationContextId } from './server-handshake.ts';

/** Requests as they come, and replies as they go. */

export interface ReceivedRequest {
  readonly flags: number;
  readonly command: number;
  /** The client's own, 8 bytes; copied into each reply. */
  readonly cookie: Uint8Array;
  readonly offset: bigint;
  readonly length: number;
}

/** Null: no request begins with these bytes. */
export function parseRequest(header: Buffer): ReceivedRequest | null {
  if (header.length !== requestHeaderBytes || header.readUInt32BE(0) !== requestMagic) return null;
  return {
    flags: header.readUInt16BE(4),
    command: header.readUInt16BE(6),
    cookie: header.subarray(8, 16),
    offset: header.readBigUInt64BE(16),
    length: header.readUInt32BE(24),
  };
}

export function simpleReply(cookie: Uint8Array, errno: number): Uint8Array {
  const bytes = Buffer.allocUnsafe(16);
  bytes.writeUInt32BE(simpleReplyMagic, 0);
  bytes.writeUInt32BE(errno, 4);
  bytes.set(cookie, 8);
  return bytes;
}

export function dataChunk(cookie: Uint8Array, offset: number, data: Uint8Array, done: boolean): readonly Uint8Array[] {
  const head = Buffer.allocUnsafe(28);
  writeHead(head, cookie, chunk.offsetData, 8 + data.length, done);
  head.writeBigUInt64BE(BigInt(offset), 20);
  return [head, data];
}

export function doneChunk(cookie: Uint8Array): Uint8Array {
  const head = Buffer.allocUnsafe(20);
  writeHead(head, cookie, chunk.none, 0, true);
  return head;
}

/** `extents`: pairs of 32-bit length and flags. */
export function statusChunk(cookie: Uint8Array, extents: readonly number[]): Uint8Array {
  const bytes = Buffer.allocUnsafe(24 + 4 * extents.length);
  writeHead(bytes, cookie, chunk.blockStatus, 4 + 4 * extents.length, true);
  bytes.writeUInt32BE(allocationContextId, 20);
  extents.forEach((value, index) => {
    bytes.writeUInt32BE(value, 24 + 4 * index);
  });
  return bytes;
}

/** `offset`: where in a read the error is. Ends the reply. */
export function errorChunk(cookie: Uint8Array, errno: number, words: string, offset: number | null): Uint8Array {
  const text = Buffer.from(words);
  const tail = Buffer.alloc(offset === null ? 0 : 8);
  if (offset !== null) tail.writeBigUInt64BE(BigInt(offset));
  const head = Buffer.allocUnsafe(26);
  const type = offset === null ? chunk.firstError + 1 : chunk.errorOffset;
  writeHead(head, cookie, type, 6 + text.length + tail.length, true);
  head.writeUInt32BE(errno, 20);
  head.writeUInt16BE(text.length, 24);
  return Buffer.concat([head, text, tail]);
}

function writeHead(into: Buffer, cookie: Uint8Array, type: number, length: number, done: boolean): void {
  into.writeUInt32BE(structuredReplyMagic, 0);
  into.writeUInt16BE(done ? chunkFlagDone : 0, 4);
  into.writeUInt16BE(type, 6);
  into.set(cookie, 8);
  into.writeUInt32BE(length, 16);
}
