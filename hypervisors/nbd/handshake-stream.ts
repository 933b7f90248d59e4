import { NbdProtocolViolation } from './nbd-errors.ts';
import type { BytesReceiver } from './nbd-socket.ts';

/** Far more than a server has reason to send ahead of a question. */
const aheadBytesMax = 1024 * 1024;

/** What the server sends before transmission begins, to be asked for by length. */
export class HandshakeStream implements BytesReceiver {
  readonly #where: string;
  #ahead: Buffer = Buffer.alloc(0);
  #wanted: { readonly bytes: number; resolve(bytes: Buffer): void; reject(error: Error): void } | null = null;
  #failed: Error | null = null;

  constructor(where: string) {
    this.#where = where;
  }

  /** Bytes that came and that nobody has asked for. */
  get aheadBytes(): number {
    return this.#ahead.length;
  }

  nextTarget(): null {
    return null;
  }

  bytes(chunk: Uint8Array): void {
    if (this.#failed !== null) return;
    if (this.#ahead.length + chunk.length > aheadBytesMax)
      this.ended(new NbdProtocolViolation(`${this.#where}: more than ${aheadBytesMax} bytes that nobody asked for`));
    else this.#ahead = Buffer.concat([this.#ahead, chunk]);
    this.#serve();
  }

  ended(error: Error): void {
    this.#failed ??= error;
    this.#serve();
  }

  /** Rejects when the connection ends first. One at a time. */
  read(bytes: number): Promise<Buffer> {
    const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
    this.#wanted = { bytes, resolve, reject };
    this.#serve();
    return promise;
  }

  /** The rest, for whoever comes next. */
  takeAhead(): Uint8Array {
    const rest = this.#ahead;
    this.#ahead = Buffer.alloc(0);
    return rest;
  }

  #serve(): void {
    const wanted = this.#wanted;
    if (wanted === null) return;
    if (this.#ahead.length >= wanted.bytes) {
      this.#wanted = null;
      const bytes = this.#ahead.subarray(0, wanted.bytes);
      this.#ahead = this.#ahead.subarray(wanted.bytes);
      wanted.resolve(bytes);
    } else if (this.#failed !== null) {
      this.#wanted = null;
      wanted.reject(this.#failed);
    }
  }
}
