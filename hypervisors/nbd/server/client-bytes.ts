import { once } from 'node:events';
import type { Socket } from 'node:net';
import { NbdConnectionLost } from '../nbd-errors.ts';

/** What came and nobody has asked for; more is left to the kernel, which makes the client wait. */
const aheadBytesMax = 64 * 1024;
const skipBytes = 64 * 1024;
/** Of what is to be encrypted; nothing shows how far a longer piece has come. */
const securePieceBytes = 256 * 1024;

interface Wanted {
  readonly into: Uint8Array;
  filled: number;
  /** The client may be silent until it begins this. */
  readonly optional: boolean;
  resolve(): void;
  reject(error: unknown): void;
}

/** Bytes of one client, to be asked for by length, and bytes to it. The socket is read only as far as somebody asks. */
export class ClientBytes {
  readonly #where: string;
  readonly #ended = new AbortController();
  #socket: Socket;
  #ahead: Buffer = Buffer.alloc(0);
  #wanted: Wanted | null = null;
  #stallMs = 0;
  /** Null: in plain. Otherwise one piece after the other, so that a slow line can be told from a client that takes nothing. */
  #sending: Promise<void> | null = null;

  constructor(socket: Socket, where: string) {
    this.#where = where;
    this.#socket = socket;
    this.#attach(socket);
  }

  /** Aborted when the client is gone, or was sent away, with the reason. */
  get gone(): AbortSignal {
    return this.#ended.signal;
  }

  /** Bytes that came, and that nobody has asked for. */
  get aheadBytes(): number {
    return this.#ahead.length + this.#socket.readableLength;
  }

  /** For what the client may begin whenever it likes. Rejects when it goes first. One call at a time. */
  async read(length: number): Promise<Buffer> {
    const bytes = Buffer.allocUnsafe(length);
    await this.#fill(bytes, true);
    return bytes;
  }

  /** For what the client has announced. */
  readInto(into: Uint8Array): Promise<void> {
    return this.#fill(into, false);
  }

  /** Reads so many bytes and forgets them. */
  async skip(length: number): Promise<void> {
    const scratch = Buffer.allocUnsafe(Math.min(length, skipBytes));
    for (let left = length; left > 0; left -= scratch.length)
      await this.readInto(scratch.subarray(0, Math.min(left, scratch.length)));
  }

  /** Resolves when the kernel has the bytes, or when nobody will ever read them; until then they must not change. */
  send(parts: readonly Uint8Array[]): Promise<void> {
    const socket = this.#socket;
    if (this.gone.aborted) return Promise.resolve();
    if (this.#sending !== null) {
      this.#sending = this.#sending.then(() => this.#sendInPieces(socket, parts));
      return this.#sending;
    }
    this.#gather(socket);
    const { promise, resolve } = Promise.withResolvers<void>();
    const last = parts.length - 1;
    parts.forEach((part, index) => {
      if (index < last) socket.write(part);
      else socket.write(part, () => resolve());
    });
    return promise;
  }

  /**
   * Calls `stalled` when nothing moved for so long while the client owed us bytes of something that it began, or should have taken some.
   * The socket's own clock sees how far the kernel has come with a single large write in plain. Between two requests a client may be silent for days.
   */
  watchStalls(stallMs: number, stalled: () => void): void {
    this.#stallMs = stallMs;
    this.#socket.setTimeout(stallMs, () => {
      const wanted = this.#wanted;
      const owed = wanted !== null && (!wanted.optional || wanted.filled > 0);
      if (owed || this.#socket.writableLength > 0) stalled();
    });
  }

  /** From now on bytes go through `secure`, which took over the socket. */
  async secure(upgrade: (plain: Socket) => Promise<Socket>): Promise<void> {
    const plain = this.#socket;
    plain.removeAllListeners('data');
    this.#socket = await upgrade(plain);
    this.#sending = Promise.resolve();
    this.#attach(this.#socket);
  }

  /** Sends what was handed over and closes. */
  async end(timeoutMs: number): Promise<void> {
    const socket = this.#socket;
    if (socket.closed) return;
    const closed = once(socket, 'close');
    const timer = setTimeout(() => socket.destroy(), timeoutMs);
    socket.resume();
    socket.end();
    await closed.catch(() => undefined);
    clearTimeout(timer);
  }

  /** Sends the client away. */
  destroy(reason: Error): void {
    this.#end(reason);
  }

  async #fill(into: Uint8Array, optional: boolean): Promise<void> {
    const filled = Math.min(into.length, this.#ahead.length);
    into.set(this.#ahead.subarray(0, filled));
    this.#ahead = this.#ahead.subarray(filled);
    if (filled === into.length) return;
    this.gone.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#wanted = { into, filled, optional, resolve, reject };
    // What it was waiting for until now may have taken longer than a client may be silent.
    if (!optional) this.#socket.setTimeout(this.#stallMs);
    this.#socket.resume();
    await promise;
  }

  #attach(socket: Socket): void {
    const lost = (cause: Error | null) => {
      const why = cause !== null && 'code' in cause ? ` (${String(cause.code)})` : '';
      if (socket === this.#socket)
        this.#end(new NbdConnectionLost(`${this.#where}: the client went away${why}`, { cause }));
    };
    socket.on('data', (chunk: Buffer) => this.#receive(chunk));
    socket.on('error', lost);
    socket.on('end', () => lost(null));
    socket.on('close', () => lost(null));
  }

  #receive(chunk: Buffer): void {
    const wanted = this.#wanted;
    let rest = chunk;
    if (wanted !== null) {
      const taken = Math.min(chunk.length, wanted.into.length - wanted.filled);
      wanted.into.set(chunk.subarray(0, taken), wanted.filled);
      wanted.filled += taken;
      rest = chunk.subarray(taken);
      if (wanted.filled < wanted.into.length) return;
      this.#wanted = null;
      wanted.resolve();
    }
    if (rest.length === 0) return;
    this.#ahead = this.#ahead.length === 0 ? rest : Buffer.concat([this.#ahead, rest]);
    if (this.#ahead.length >= aheadBytesMax) this.#socket.pause();
  }

  async #sendInPieces(socket: Socket, parts: readonly Uint8Array[]): Promise<void> {
    const [head = new Uint8Array(), ...rest] = parts;
    this.#gather(socket);
    if (rest.length > 0) socket.write(head);
    for (const part of rest.length > 0 ? rest : [head])
      for (let at = 0; at < part.length && !this.gone.aborted; at += securePieceBytes) {
        const { promise, resolve } = Promise.withResolvers<void>();
        socket.write(part.subarray(at, at + securePieceBytes), () => resolve());
        await promise;
      }
  }

  /** Answers that become ready in one turn of the event loop leave in one system call. */
  #gather(socket: Socket): void {
    if (socket.writableCorked > 0) return;
    socket.cork();
    setImmediate(() => socket.uncork());
  }

  #end(reason: Error): void {
    if (this.gone.aborted) return;
    this.#ended.abort(reason);
    this.#socket.destroy();
    this.#wanted?.reject(reason);
    this.#wanted = null;
  }
}
