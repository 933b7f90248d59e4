import { NbdProtocolViolation, NbdRequestFailed } from './nbd-errors.ts';
import { printable } from './nbd-handshake.ts';
import {
  chunk,
  chunkFlagDone,
  command,
  errnoName,
  readUint64,
  simpleReplyMagic,
  stringBytesMax,
  structuredReplyMagic,
} from './nbd-wire.ts';
import type { PendingRequest } from './pending-request.ts';

/** Of one structured read: a server may split it, but not into dust. */
const chunksMax = 65_536;
/** A million extents: what nbdkit sends at most; qemu-nbd an eighth of it. */
const statusBytesMax = 4 + 8 * 1024 * 1024;
const errorBytesMax = 6 + stringBytesMax + 8;
/** Below this, one more system call costs more than copying. */
const directBytesMin = 4096;

export interface ReplyContext {
  readonly where: string;
  readonly structured: boolean;
  readonly capacityBytes: number;
  readonly minBlockBytes: number;
  readonly contexts: ReadonlyMap<number, string>;
  /** By cookie. */
  find(cookie: number): PendingRequest | undefined;
  /** The answer is whole: forgets the cookie. */
  finished(cookie: number): void;
}

/**
 * Takes the bytes of the transmission phase as they come. At any time it waits for a number of bytes, which go to one
 * place, and knows what to do when they are all there. Any throw is an NbdProtocolViolation and final.
 */
export class ReplyParser {
  readonly #context: ReplyContext;
  readonly #header = Buffer.alloc(20);
  readonly #headerView = new DataView(this.#header.buffer, this.#header.byteOffset, 20);
  /** Null: the bytes are dropped. */
  #target: Uint8Array | null = this.#header;
  #wanted = 16;
  #filled = 0;
  #then: () => void = () => this.#startReply();
  /** What was handed out to be filled by the socket. */
  #lent: Uint8Array | null = null;
  #current: PendingRequest | null = null;
  #cookie = 0;
  /** Of the structured chunk being read: its type, flags and the bytes of it that are not asked for yet. */
  #type = 0;
  #flags = 0;
  #length = 0;

  constructor(context: ReplyContext) {
    this.#context = context;
  }

  /** Payloads of some size go from the kernel straight to where they belong. */
  nextTarget(): Uint8Array | null {
    const rest = this.#wanted - this.#filled;
    this.#lent =
      this.#target !== null && rest >= directBytesMin ? this.#target.subarray(this.#filled, this.#wanted) : null;
    return this.#lent;
  }

  /** Whether the socket may at this moment write into the memory of that request. */
  isLent(request: PendingRequest): boolean {
    return this.#lent !== null && this.#current === request && this.#target !== this.#header;
  }

  /** The request's memory is not ours any more: the rest of its payload is dropped. */
  forget(request: PendingRequest): void {
    if (this.#current === request && request.coverage !== null && this.#target !== this.#header) this.#target = null;
  }

  bytes(arrived: Uint8Array): void {
    const lent = this.#lent;
    this.#lent = null;
    const inPlace = lent !== null && arrived.buffer === lent.buffer && arrived.byteOffset === lent.byteOffset;
    let at = inPlace ? arrived.length : 0;
    this.#filled += at;
    for (;;) {
      const count = Math.min(arrived.length - at, this.#wanted - this.#filled);
      if (count > 0) {
        this.#target?.set(arrived.subarray(at, at + count), this.#filled);
        this.#filled += count;
        at += count;
      }
      if (this.#filled < this.#wanted) return;
      this.#then();
    }
  }

  #expect(bytes: number, target: Uint8Array | null, then: () => void): void {
    this.#target = target;
    this.#wanted = bytes;
    this.#filled = 0;
    this.#then = then;
  }

  #expectReply(): void {
    this.#current = null;
    this.#expect(16, this.#header, this.#startReplyThen);
  }

  readonly #startReplyThen = () => this.#startReply();

  #startReply(): void {
    const magic = this.#headerView.getUint32(0);
    if (magic === structuredReplyMagic && this.#context.structured) {
      this.#wanted = 20;
      this.#then = this.#startChunkThen;
    } else if (magic === simpleReplyMagic) this.#simpleReply();
    else throw this.#violation(`0x${magic.toString(16)} where a reply should begin`);
  }

  readonly #startChunkThen = () => this.#startChunk();

  #simpleReply(): void {
    const request = this.#find();
    const { command: asked, length } = request.request;
    if (asked === command.blockStatus || (asked === command.read && this.#context.structured))
      throw this.#violation('a simple reply where it has to be structured');
    const errno = this.#headerView.getUint32(4);
    if (errno !== 0) request.failure = this.#failed(request, errno, '');
    if (errno !== 0 || asked !== command.read) this.#finish();
    else this.#expect(length, request.into, this.#simpleReadThen);
  }

  readonly #simpleReadThen = () => {
    this.#current?.coverage?.add(0, this.#current.request.length);
    this.#finish();
  };

  #startChunk(): void {
    this.#flags = this.#headerView.getUint16(4);
    this.#type = this.#headerView.getUint16(6);
    this.#length = this.#headerView.getUint32(16);
    const request = this.#find();
    request.chunks += 1;
    if (request.chunks > chunksMax) throw this.#violation(`more than ${chunksMax} chunks`);
    if ((this.#flags & ~chunkFlagDone) !== 0) throw this.#violation(`chunk flags 0x${this.#flags.toString(16)}`);
    if (this.#type >= chunk.firstError) this.#expectError();
    else if (this.#type === chunk.offsetData) this.#expectData(request);
    else if (this.#type === chunk.offsetHole) this.#expectHole(request);
    else if (this.#type === chunk.blockStatus) this.#expectStatus(request);
    else if (this.#type !== chunk.none) throw this.#violation(`a chunk of the unknown type ${this.#type}`);
    else if (this.#length !== 0) throw this.#violation(`a final chunk with ${this.#length} bytes in it`);
    else if ((this.#flags & chunkFlagDone) === 0) throw this.#violation('an empty chunk that is not the last');
    else this.#endChunk();
  }

  #expectData(request: PendingRequest): void {
    if (request.coverage === null) throw this.#violation('data for a request that reads none');
    if (this.#length <= 8) throw this.#violation(`a data chunk of ${this.#length} bytes, offset included`);
    if (this.#length - 8 > request.request.length) throw this.#violation(`a data chunk of ${this.#length - 8} bytes`);
    this.#expect(8, this.#header, this.#dataThen);
  }

  readonly #dataThen = () => {
    const request = this.#currentRequest();
    const start = this.#cover(request, this.#length - 8);
    const place = request.into?.subarray(start, start + this.#length - 8) ?? null;
    this.#expect(this.#length - 8, place, this.#endChunkThen);
  };

  #expectHole(request: PendingRequest): void {
    if (request.coverage === null) throw this.#violation('a hole for a request that reads nothing');
    if (this.#length !== 12) throw this.#violation(`a hole in ${this.#length} bytes, not 12`);
    this.#expect(12, this.#header, this.#holeThen);
  }

  readonly #holeThen = () => {
    const request = this.#currentRequest();
    const length = this.#headerView.getUint32(8);
    if (length === 0) throw this.#violation('a hole of 0 bytes');
    const start = this.#cover(request, length);
    request.into?.fill(0, start, start + length);
    this.#endChunk();
  };

  /** Where in the read the chunk begins, whose offset is at the start of the header. */
  #cover(request: PendingRequest, length: number): number {
    const offset = readUint64(this.#headerView, 0);
    const start = offset - request.request.offset;
    if (start < 0 || start + length > request.request.length)
      throw this.#violation(`a chunk of ${length} bytes at ${offset}, outside the request`);
    if (request.coverage?.add(start, length) !== true)
      throw this.#violation(`a chunk of ${length} bytes at ${offset}, where bytes had arrived before`);
    return start;
  }

  #expectStatus(request: PendingRequest): void {
    if (request.request.command !== command.blockStatus) throw this.#violation('a block status that was not asked for');
    if (this.#length < 12 || this.#length % 8 !== 4 || this.#length > statusBytesMax)
      throw this.#violation(`a block status in ${this.#length} bytes`);
    const body = Buffer.allocUnsafeSlow(this.#length);
    this.#expect(this.#length, body, () => this.#takeStatus(this.#currentRequest(), body));
  }

  #takeStatus(request: PendingRequest, body: Buffer): void {
    const id = body.readUInt32BE(0);
    const name = this.#context.contexts.get(id);
    if (name === undefined)
      throw this.#violation(`a block status of the context number ${id}, which was never granted`);
    if (request.statuses.has(name)) throw this.#violation(`two block statuses of ${name}`);
    const extents = new DataView(body.buffer, body.byteOffset + 4, body.length - 4);
    this.#checkExtents(request, extents);
    request.statuses.set(name, extents);
    this.#endChunk();
  }

  /** The last extent may reach beyond the request, though not beyond the disk; none may begin there. */
  #checkExtents({ request }: PendingRequest, extents: DataView): void {
    let offset = request.offset;
    for (let at = 0; at < extents.byteLength; at += 8) {
      const length = extents.getUint32(at);
      if (length === 0) throw this.#violation(`an extent of 0 bytes at ${offset}`);
      if (length % this.#context.minBlockBytes !== 0)
        throw this.#violation(
          `an extent of ${length} bytes at ${offset}, no multiple of ${this.#context.minBlockBytes}`,
        );
      if (offset >= request.offset + request.length)
        throw this.#violation(`an extent at ${offset}, beyond the request`);
      offset += length;
    }
    if (offset > this.#context.capacityBytes) throw this.#violation(`an extent up to ${offset}, beyond the disk`);
  }

  #expectError(): void {
    if (this.#length < 6 || this.#length > errorBytesMax) throw this.#violation(`an error in ${this.#length} bytes`);
    const body = Buffer.allocUnsafe(this.#length);
    this.#expect(this.#length, body, () => this.#takeError(this.#currentRequest(), body));
  }

  #takeError(request: PendingRequest, body: Buffer): void {
    const errno = body.readUInt32BE(0);
    const textBytes = body.readUInt16BE(4);
    const tail = this.#type === chunk.errorOffset ? 8 : 0;
    if (errno === 0) throw this.#violation('an error without a number');
    if (textBytes > stringBytesMax || 6 + textBytes + tail > body.length)
      throw this.#violation(`an error text of ${textBytes} bytes in a chunk of ${body.length}`);
    if (tail > 0) this.#checkErrorOffset(request, readUint64(viewOf(body), 6 + textBytes));
    request.failure ??= this.#failed(request, errno, printable(body.subarray(6, 6 + textBytes)));
    this.#endChunk();
  }

  #checkErrorOffset({ request }: PendingRequest, offset: number): void {
    if (offset < request.offset || offset >= request.offset + request.length)
      throw this.#violation(`an error at ${offset}, outside the request`);
  }

  readonly #endChunkThen = () => this.#endChunk();

  #endChunk(): void {
    if ((this.#flags & chunkFlagDone) === 0) this.#expectReply();
    else this.#finish();
  }

  #finish(): void {
    const request = this.#currentRequest();
    if (request.failure === null) this.#checkWhole(request);
    this.#context.finished(this.#cookie);
    request.finish();
    this.#expectReply();
  }

  #checkWhole(request: PendingRequest): void {
    if (request.coverage !== null && !request.coverage.complete)
      throw this.#violation(
        `the answer ends without the bytes at ${request.request.offset + request.coverage.firstMissing}`,
      );
    if (request.request.command !== command.blockStatus) return;
    for (const name of this.#context.contexts.values())
      if (!request.statuses.has(name)) throw this.#violation(`the answer ends without the context ${name}`);
  }

  /** The request whose cookie is in the header. */
  #find(): PendingRequest {
    const [high, low] = [this.#headerView.getUint32(8), this.#headerView.getUint32(12)];
    const request = high === 0 ? this.#context.find(low) : undefined;
    if (request === undefined)
      throw this.#violation(`a reply to a request that is not pending (cookie ${high}:${low})`);
    this.#cookie = low;
    this.#current = request;
    return request;
  }

  #currentRequest(): PendingRequest {
    if (this.#current === null) throw this.#violation('bytes that belong to no request');
    return this.#current;
  }

  #failed(request: PendingRequest, errno: number, text: string): NbdRequestFailed {
    const name = errnoName(errno);
    const words = text === '' ? name : `${name}: ${text}`;
    return new NbdRequestFailed(
      `${this.#context.where}: ${request.describe()} failed at the server (${words}): see its log`,
      name,
    );
  }

  #violation(what: string): NbdProtocolViolation {
    const during = this.#current === null ? '' : ` in the answer to a ${this.#current.describe()}`;
    return new NbdProtocolViolation(`${this.#context.where}: the server breaks the protocol${during}: ${what}`);
  }
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}
