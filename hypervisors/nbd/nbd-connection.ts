import { HandshakeStream } from './handshake-stream.ts';
import { NbdConnectionLost, NbdProtocolViolation, NbdTimedOut, NbdUnsupported } from './nbd-errors.ts';
import type { NbdExport } from './nbd-export.ts';
import { type HandshakeWishes, NbdHandshake } from './nbd-handshake.ts';
import { type BytesReceiver, NbdSocket } from './nbd-socket.ts';
import { describeNbdAddress, type NbdAddress } from './nbd-uri.ts';
import { command, commandFlag, encodeRequest, type Request } from './nbd-wire.ts';
import { PendingRequest, type StatusReply } from './pending-request.ts';
import { ReplyParser } from './reply-parser.ts';

/** Further requests wait in the order in which they came. */
const inFlightRequestsMax = 64;
const closeTimeoutMs = 2_000;
/** How long an aborted read waits for the kernel to give its memory back, before the connection is given up. */
const abortGraceMs = 1_000;
const timeoutChecks = 4;

export interface NbdTimeouts {
  /** From the first packet until the export is open, TLS included. */
  readonly handshakeMs: number;
  /** How long a server may leave all pending requests unanswered. */
  readonly responseMs: number;
}

export const nbdTimeouts: NbdTimeouts = { handshakeMs: 20_000, responseMs: 60_000 };

/** One connection to one export. The caller keeps to the export's block sizes. Whoever opens it disposes it. */
export class NbdConnection implements BytesReceiver, AsyncDisposable {
  readonly export: NbdExport;
  readonly #where: string;
  readonly #socket: NbdSocket;
  readonly #parser: ReplyParser;
  readonly #pending = new Map<number, PendingRequest>();
  readonly #waiting: PendingRequest[] = [];
  readonly #abortedButLent = new Map<PendingRequest, unknown>();
  readonly #responseMs: number;
  #timer: NodeJS.Timeout | null = null;
  #lastCookie = 0;
  #lastAnswerAt = 0;
  #ended: Error | null = null;

  private constructor(where: string, socket: NbdSocket, opened: NbdExport, responseMs: number) {
    this.#where = where;
    this.#socket = socket;
    this.export = opened;
    this.#responseMs = responseMs;
    this.#parser = new ReplyParser({
      where,
      structured: opened.structured,
      capacityBytes: opened.capacityBytes,
      minBlockBytes: opened.blocks.min,
      contexts: opened.contexts,
      find: (cookie) => this.#pending.get(cookie),
      finished: (cookie) => this.#finished(cookie),
    });
  }

  static open(
    address: NbdAddress,
    wishes: HandshakeWishes,
    timeouts: NbdTimeouts,
    signal: AbortSignal,
  ): Promise<NbdConnection> {
    return shakeHands(address, timeouts, signal, async (socket, stream) => {
      const opened = await new NbdHandshake(address, socket, stream).enter(wishes);
      const connection = new NbdConnection(describeNbdAddress(address), socket, opened, timeouts.responseMs);
      const ahead = stream.takeAhead();
      socket.receiver = connection;
      if (ahead.length > 0) connection.bytes(ahead);
      return connection;
    });
  }

  /** Requests that are pending or wait for their turn. */
  get load(): number {
    return this.#pending.size + this.#waiting.length;
  }

  /** Fills `into` exactly. When it rejects, nothing is written there any more. */
  async read(offset: number, into: Uint8Array, signal: AbortSignal): Promise<void> {
    await this.#ask({ command: command.read, flags: 0, offset, length: into.length }, signal, into);
  }

  /** One reply for each granted context; it may stop short of the length. */
  blockStatus(offset: number, length: number, signal: AbortSignal): Promise<StatusReply> {
    return this.#ask({ command: command.blockStatus, flags: 0, offset, length }, signal);
  }

  /** An abort leaves open whether it took place. The bytes must not change before it settles. */
  async write(
    offset: number,
    bytes: Uint8Array,
    options: { readonly fua: boolean },
    signal: AbortSignal,
  ): Promise<void> {
    this.#need('write', 'it is read-only');
    const request = { command: command.write, flags: this.#fua(options), offset, length: bytes.length };
    await this.#ask(request, signal, null, bytes);
  }

  /** `mayTrim`: the server may make a hole; otherwise the space stays allocated. */
  async writeZeroes(
    offset: number,
    length: number,
    options: { readonly mayTrim: boolean; readonly fua: boolean },
    signal: AbortSignal,
  ): Promise<void> {
    this.#need('writeZeroes', 'it can not write zeroes');
    const flags = this.#fua(options) | (options.mayTrim ? 0 : commandFlag.noHole);
    await this.#ask({ command: command.writeZeroes, flags, offset, length }, signal);
  }

  /** A hint: what reads back is not defined. */
  async trim(offset: number, length: number, signal: AbortSignal): Promise<void> {
    this.#need('trim', 'it can not trim');
    await this.#ask({ command: command.trim, flags: 0, offset, length }, signal);
  }

  /** Every write that was answered before is durable. */
  async flush(signal: AbortSignal): Promise<void> {
    this.#need('flush', 'it can not flush');
    await this.#ask({ command: command.flush, flags: 0, offset: 0, length: 0 }, signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#ended !== null) return;
    // With requests pending the socket may be about to write into their memory, so it goes at once.
    const quiet = this.#pending.size === 0;
    this.#fail(new NbdConnectionLost(`${this.#where}: the connection was closed on this side`), !quiet);
    if (!quiet) return;
    const goodbye = encodeRequest({ command: command.disconnect, flags: 0, offset: 0, length: 0 }, 0);
    await this.#socket.end(goodbye, closeTimeoutMs);
  }

  nextTarget(): Uint8Array | null {
    return this.#parser.nextTarget();
  }

  bytes(chunk: Uint8Array): void {
    if (this.#ended !== null) return;
    try {
      this.#parser.bytes(chunk);
    } catch (error) {
      this.#fail(error instanceof Error ? error : new NbdProtocolViolation(`${this.#where}: ${error}`), true);
    }
    for (const [request, reason] of this.#abortedButLent) this.#drop(request, reason);
    this.#abortedButLent.clear();
  }

  ended(error: Error): void {
    this.#fail(error, true);
  }

  #fua(options: { readonly fua: boolean }): number {
    if (options.fua) this.#need('fua', 'it can not force a single write to stable storage');
    return options.fua ? commandFlag.fua : 0;
  }

  #need(ability: keyof NbdExport['can'], lack: string): void {
    if (!this.export.can[ability])
      throw new NbdUnsupported(`${this.#where}: the server says of the export that ${lack}`);
  }

  async #ask(
    asked: Request,
    signal: AbortSignal,
    into: Uint8Array | null = null,
    payload: Uint8Array | null = null,
  ): Promise<StatusReply> {
    signal.throwIfAborted();
    if (this.#ended !== null) throw this.#ended;
    const request = new PendingRequest(asked, into, payload);
    const abort = () => this.#abort(request, signal.reason);
    signal.addEventListener('abort', abort, { once: true });
    if (this.#pending.size < inFlightRequestsMax) this.#send(request);
    else this.#waiting.push(request);
    try {
      return await request.answered;
    } finally {
      signal.removeEventListener('abort', abort);
    }
  }

  #send(request: PendingRequest): void {
    if (this.#pending.size === 0) this.#lastAnswerAt = performance.now();
    this.#timer ??= setInterval(() => this.#checkTimeout(), Math.ceil(this.#responseMs / timeoutChecks)).unref();
    this.#lastCookie = (this.#lastCookie + 1) >>> 0;
    this.#pending.set(this.#lastCookie, request);
    this.#socket.gather();
    const header = encodeRequest(request.request, this.#lastCookie);
    const { payload } = request;
    if (payload === null) this.#socket.send([header]);
    else request.sent = new Promise((resolve) => this.#socket.send([header, payload], resolve));
  }

  #finished(cookie: number): void {
    this.#pending.delete(cookie);
    this.#lastAnswerAt = performance.now();
    const next = this.#waiting.shift();
    if (next !== undefined) this.#send(next);
  }

  /** The server can't be told. The request stays pending until its answer has been drained. */
  #abort(request: PendingRequest, reason: unknown): void {
    const at = this.#waiting.indexOf(request);
    if (at !== -1) this.#waiting.splice(at, 1);
    if (request.sent !== null) {
      // The kernel may not have taken the payload yet, so it still is not the caller's.
      void request.sent.then(() => request.fail(reason));
    } else if (this.#parser.isLent(request)) {
      this.#abortedButLent.set(request, reason);
      setTimeout(() => this.#giveUpLoan(request), abortGraceMs).unref();
    } else this.#drop(request, reason);
  }

  #drop(request: PendingRequest, reason: unknown): void {
    this.#parser.forget(request);
    request.fail(reason);
  }

  #giveUpLoan(request: PendingRequest): void {
    if (!this.#abortedButLent.has(request)) return;
    this.#fail(
      new NbdConnectionLost(`${this.#where}: a read was aborted while the server was silent in the middle of its data`),
      true,
    );
  }

  #checkTimeout(): void {
    const silentMs = performance.now() - this.#lastAnswerAt;
    const [oldest] = this.#pending.values();
    if (oldest === undefined || silentMs < this.#responseMs) return;
    this.#fail(
      new NbdTimedOut(
        `${this.#where}: the server has answered none of ${this.#pending.size} requests for ${Math.round(silentMs / 1000)} s ` +
          `(the oldest: ${oldest.describe()}): check it and the storage behind it`,
      ),
      true,
    );
  }

  /** Every request fails with the same error, after the socket has let go of their memory. */
  #fail(error: Error, destroy: boolean): void {
    if (this.#ended !== null) return;
    this.#ended = error;
    if (this.#timer !== null) clearInterval(this.#timer);
    if (destroy) this.#socket.destroy();
    for (const [request, reason] of this.#abortedButLent) request.fail(reason);
    for (const request of [...this.#pending.values(), ...this.#waiting]) request.fail(error);
    this.#abortedButLent.clear();
    this.#pending.clear();
    this.#waiting.length = 0;
  }
}

/** The names of all meta contexts that the export offers, dirty bitmaps among them. */
export function listNbdContexts(
  address: NbdAddress,
  tls: HandshakeWishes['tls'],
  timeouts: NbdTimeouts,
  signal: AbortSignal,
): Promise<string[]> {
  return shakeHands(address, timeouts, signal, async (socket, stream) => {
    const names = await new NbdHandshake(address, socket, stream).listContexts(tls);
    socket.destroy();
    return names;
  });
}

/** Destroys the socket unless the handshake succeeds, in time and unaborted. */
async function shakeHands<Result>(
  address: NbdAddress,
  timeouts: NbdTimeouts,
  signal: AbortSignal,
  shake: (socket: NbdSocket, stream: HandshakeStream) => Promise<Result>,
): Promise<Result> {
  signal.throwIfAborted();
  const where = describeNbdAddress(address);
  const socket = new NbdSocket(address);
  const stream = new HandshakeStream(where);
  socket.receiver = stream;
  const { promise: stopped, reject: stop } = Promise.withResolvers<never>();
  const abort = () => stop(signal.reason);
  signal.addEventListener('abort', abort, { once: true });
  const seconds = timeouts.handshakeMs / 1000;
  const late = () =>
    stop(new NbdTimedOut(`${where}: no connection after ${seconds} s: check the server and the network`));
  const timer = setTimeout(late, timeouts.handshakeMs);
  try {
    return await Promise.race([stopped, socket.connected().then(() => shake(socket, stream))]);
  } catch (error) {
    socket.destroy();
    throw error;
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', abort);
  }
}
