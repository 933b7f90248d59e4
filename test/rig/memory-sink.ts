import type { RestoreSink } from '../../restore/sinks/sink.ts';

/** A restore into memory, which notices what a file would not: writes beyond the disk, and two writes of one byte. */
export class MemorySink implements RestoreSink {
  readonly description = 'memory';
  readonly startsZeroed = true;
  readonly mayHoldContent = false;
  readonly direct = null;
  readonly bytes: Uint8Array;
  readonly #written: Uint8Array;

  constructor(capacityBytes: number) {
    this.bytes = new Uint8Array(capacityBytes);
    this.#written = new Uint8Array(Math.ceil(capacityBytes / 65_536));
  }

  async write(offset: number, bytes: Uint8Array): Promise<void> {
    if (offset + bytes.length > this.bytes.length)
      throw new Error(`a write of ${bytes.length} at ${offset}: beyond the disk`);
    for (let block = offset / 65_536; block < (offset + bytes.length) / 65_536; block++) {
      if (this.#written[block] !== 0) throw new Error(`block ${block} was written twice, or not as a whole`);
      this.#written[block] = 1;
    }
    this.bytes.set(bytes, offset);
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    into.set(this.bytes.subarray(offset, offset + into.length));
  }

  async complete(): Promise<void> {
    // Nothing to make durable.
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Nothing to close.
  }
}
