import { ByteReader } from './encoding.ts';

/** A list that may be too long to be held as objects: an array is one. */
export interface LongList<T> extends Iterable<T> {
  readonly length: number;
}

/** Decodes its items anew each time it is walked. All of them were decoded once already, so that none can fail. */
export class DecodedList<T> implements LongList<T> {
  readonly length: number;
  readonly #bytes: Uint8Array;
  readonly #read: (reader: ByteReader) => T;

  /** `bytes` are those of the items alone, and must not change. */
  constructor(bytes: Uint8Array, length: number, read: (reader: ByteReader) => T) {
    this.length = length;
    this.#bytes = bytes;
    this.#read = read;
  }

  *[Symbol.iterator](): Generator<T> {
    const reader = new ByteReader('a list', this.#bytes);
    for (let i = 0; i < this.length; i++) yield this.#read(reader);
  }
}
