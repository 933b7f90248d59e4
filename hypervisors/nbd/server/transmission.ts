import { NbdProtocolViolation, NbdRequestFailed } from '../nbd-errors.ts';
import { command, commandFlag, errnoOf, requestHeaderBytes, stateFlag, stringBytesMax } from '../nbd-wire.ts';
import { ByteBudget } from './byte-budget.ts';
import type { ClientBytes } from './client-bytes.ts';
import { requestBytesMax } from './describe-export.ts';
import { describeRequest, judgeRequest } from './judge-request.ts';
import type { NbdExportHandler, NbdExportWrites } from './nbd-export-handler.ts';
import type { Agreement } from './server-handshake.ts';
import {
  dataChunk,
  doneChunk,
  errorChunk,
  parseRequest,
  type ReceivedRequest,
  simpleReply,
  statusChunk,
} from './server-replies.ts';

export interface TransmissionBounds {
  readonly requestsInFlightMax: number;
  /** Payload of the requests in flight, of one connection. */
  readonly connectionBytesMax: number;
  /** Of all connections together. */
  readonly budget: ByteBudget;
}

/** So much of a large read is in memory at a time. */
const readChunkBytes = 1024 * 1024;
const extentsMax = 2048;
/** What a request without payload takes. */
const smallRequestBytes = 4096;
const nothing = new Uint8Array();
/** An error's text may not exceed it; what we say is shorter anyway. */
const wordsMax = Math.min(1000, stringBytesMax);

interface Served extends Omit<ReceivedRequest, 'offset'> {
  readonly offset: number;
}

/** Serves the requests of one client, many at a time, until it says goodbye. Further ones are left in the socket. */
export class Transmission {
  readonly #client: ClientBytes;
  readonly #agreement: Agreement;
  readonly #handler: NbdExportHandler;
  readonly #bounds: TransmissionBounds;
  readonly #where: string;
  /** Told of each request that a handler could not serve. */
  readonly #failed: (request: string, error: unknown) => void;
  readonly #slots: ByteBudget;
  readonly #own: ByteBudget;

  constructor(
    client: ClientBytes,
    agreement: Agreement,
    bounds: TransmissionBounds,
    where: string,
    failed: (request: string, error: unknown) => void,
  ) {
    this.#client = client;
    this.#agreement = agreement;
    this.#handler = agreement.handler;
    this.#bounds = bounds;
    this.#where = where;
    this.#failed = failed;
    this.#slots = new ByteBudget(bounds.requestsInFlightMax);
    this.#own = new ByteBudget(bounds.connectionBytesMax);
  }

  /** Rejects when the client is gone without a goodbye, or has to be sent away. No handler is at work any more when it settles. */
  async run(): Promise<void> {
    try {
      await this.#takeRequests();
    } finally {
      // Handlers hear of a client that is gone by their signal.
      await this.#slots.take(this.#bounds.requestsInFlightMax, new AbortController().signal);
    }
  }

  async #takeRequests(): Promise<void> {
    for (;;) {
      const request = parseRequest(await this.#client.read(requestHeaderBytes));
      if (request === null) throw this.#violation('a request without its magic number');
      if (request.command === command.disconnect) return;
      await this.#admit(request);
    }
  }

  async #admit(request: ReceivedRequest): Promise<void> {
    const payloadBytes = request.command === command.write ? request.length : 0;
    if (payloadBytes > requestBytesMax) throw this.#violation(`a ${describeRequest(request)}`);
    const { gone } = this.#client;
    using taking = new DisposableStack();
    const take = async (budget: ByteBudget, wanted: number) =>
      taking.adopt(await budget.take(wanted, gone), (taken) => budget.give(taken));
    await take(this.#slots, 1);
    const refusal = judgeRequest(request, this.#agreement);
    if (refusal !== null) {
      await this.#client.skip(payloadBytes);
      const held = taking.move();
      void this.#refuse(request, refusal.errno, refusal.words, null).finally(() => held.dispose());
      return;
    }
    await take(this.#bounds.budget, await take(this.#own, this.#bytesFor(request)));
    const payload = payloadBytes === 0 ? nothing : Buffer.allocUnsafeSlow(payloadBytes);
    await this.#client.readInto(payload);
    const held = taking.move();
    void this.#serve({ ...request, offset: Number(request.offset) }, payload).finally(() => held.dispose());
  }

  #bytesFor({ command: number, length, flags }: ReceivedRequest): number {
    const inPieces = this.#agreement.structured && (flags & commandFlag.dontFragment) === 0;
    if (number === command.read) return inPieces ? Math.min(length, readChunkBytes) : length;
    return number === command.write ? length : smallRequestBytes;
  }

  /** Never rejects: whatever a handler throws is an answer. */
  async #serve(request: Served, payload: Uint8Array): Promise<void> {
    try {
      if (request.command === command.read) await this.#read(request);
      else if (request.command === command.blockStatus) await this.#status(request);
      else if (this.#handler.writes !== undefined) await this.#write(request, payload, this.#handler.writes);
    } catch (error) {
      await this.#fail(request, error, null);
    }
  }

  async #read(request: Served): Promise<void> {
    const { cookie, flags, offset, length } = request;
    const { structured } = this.#agreement;
    const piece = structured && (flags & commandFlag.dontFragment) === 0 ? readChunkBytes : length;
    if (length === 0) return this.#done(cookie);
    for (let at = offset; at < offset + length; at += piece) {
      const data = Buffer.allocUnsafe(Math.min(piece, offset + length - at));
      try {
        await this.#handler.read(at, data, this.#client.gone);
      } catch (error) {
        return this.#fail(request, error, at);
      }
      const last = at + data.length === offset + length;
      const parts = structured ? dataChunk(cookie, at, data, last) : [simpleReply(cookie, 0), data];
      await this.#client.send(parts);
    }
  }

  async #write(request: Served, payload: Uint8Array, writes: NbdExportWrites): Promise<void> {
    const { command: number, cookie, flags, offset, length } = request;
    const { gone } = this.#client;
    const mayTrim = (flags & commandFlag.noHole) === 0;
    if (number === command.flush) await writes.flush(gone);
    else if (length > 0 && number === command.write) await writes.write(offset, payload, gone);
    else if (length > 0 && number === command.trim) await writes.trim(offset, length, gone);
    else if (length > 0) await writes.writeZeroes(offset, length, { mayTrim }, gone);
    if ((flags & commandFlag.fua) !== 0 && number !== command.flush) await writes.flush(gone);
    await this.#done(cookie);
  }

  async #status(request: Served): Promise<void> {
    const { cookie, flags, offset, length } = request;
    const max = (flags & commandFlag.requestOne) === 0 ? extentsMax : 1;
    const told: number[] = [];
    let end = offset;
    for await (const extent of this.#handler.extents?.(offset, length, this.#client.gone) ?? []) {
      const bytes = Math.min(extent.offset + extent.length, offset + length) - end;
      const state = extent.zero ? stateFlag.hole | stateFlag.zero : 0;
      const last = told.length - 1;
      if (told[last] === state) told[last - 1] = (told[last - 1] ?? 0) + bytes;
      else if (told.length === 2 * max) break;
      else told.push(bytes, state);
      end += bytes;
      if (end === offset + length) break;
    }
    if (told.length === 0) throw new RangeError(`no extents at ${offset}`);
    await this.#client.send([statusChunk(cookie, told)]);
  }

  async #done(cookie: Uint8Array): Promise<void> {
    await this.#client.send([this.#agreement.structured ? doneChunk(cookie) : simpleReply(cookie, 0)]);
  }

  /** Only errors that are meant for clients are told in words: others may say what is no business of theirs. */
  async #fail(request: Served, error: unknown, at: number | null): Promise<void> {
    if (this.#client.gone.aborted) return;
    this.#failed(describeRequest({ ...request, offset: BigInt(request.offset) }), error);
    if (error instanceof NbdRequestFailed) await this.#refuse(request, error.errno, error.message, at);
    else await this.#refuse(request, 'EIO', "see the server's log", at);
  }

  async #refuse(
    { cookie }: Pick<ReceivedRequest, 'cookie'>,
    errno: string,
    words: string,
    at: number | null,
  ): Promise<void> {
    const number = errnoOf(errno);
    const { structured } = this.#agreement;
    const reply = structured ? errorChunk(cookie, number, words.slice(0, wordsMax), at) : simpleReply(cookie, number);
    await this.#client.send([reply]);
  }

  #violation(what: string): NbdProtocolViolation {
    return new NbdProtocolViolation(`${this.#where}: the client breaks the protocol: it sends ${what}`);
  }
}
