import { randomBytes } from 'node:crypto';

export const dataKeyBytes = 32;

/** A machine's AES-256 key for one key epoch. Owns its 32 bytes and zeroes them when disposed. Never a string. */
export class DataKey implements Disposable {
  readonly #bytes: Uint8Array;
  #disposed = false;

  /** Takes over `bytes` (32 of them): the caller must not keep a reference. */
  constructor(bytes: Uint8Array) {
    if (bytes.length !== dataKeyBytes)
      throw new RangeError(`a data key has ${dataKeyBytes} bytes, not ${bytes.length}`);
    this.#bytes = bytes;
  }

  static generate(): DataKey {
    return new DataKey(randomBytes(dataKeyBytes));
  }

  /** The live bytes, not a copy; throws once disposed. */
  get bytes(): Uint8Array {
    if (this.#disposed) throw new Error('data key used after it was zeroed');
    return this.#bytes;
  }

  [Symbol.dispose](): void {
    this.#bytes.fill(0);
    this.#disposed = true;
  }

  toJSON(): string {
    return '[redacted]';
  }
}
