import type { RestoreSink } from '../../restore/sinks/sink.ts';

/** Bytes that are not the disk's: nothing may ever come to this. */
export class WrongBytes extends Error {
  override readonly name = 'WrongBytes';
}

/** Compares each write at once: not even a restore that fails may have written a wrong byte. */
export class ComparingSink implements RestoreSink {
  readonly description = 'comparison';
  readonly startsZeroed = true;
  readonly mayHoldContent = false;
  readonly direct = null;
  readonly #expected: Buffer;
  readonly #written: Buffer;
  #wrong: number | null = null;

  constructor(expected: Buffer) {
    this.#expected = expected;
    this.#written = Buffer.alloc(expected.length);
  }

  async write(offset: number, bytes: Uint8Array): Promise<void> {
    if (!this.#expected.subarray(offset, offset + bytes.length).equals(bytes)) this.#wrong ??= offset;
    this.#written.set(bytes, offset);
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    into.set(this.#written.subarray(offset, offset + into.length));
  }

  /** Throws WrongBytes. */
  checkWritten(): void {
    if (this.#wrong !== null) throw new WrongBytes(`wrong bytes were written at ${this.#wrong}`);
  }

  async complete(): Promise<void> {
    if (!this.#written.equals(this.#expected)) throw new WrongBytes('the disk is not complete');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Nothing to close.
  }
}
