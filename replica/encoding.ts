/** Canonical encodings of docs/format.md §1: fixed-width big-endian integers, shortest-form varints, length-prefixed bytes. */

const initialCapacityBytes = 256;
const varintBytesMax = 8;

/** An object that is not what docs/format.md says. Names the object and the offset of the first wrong byte. */
export class FormatInvalid extends Error {
  readonly code = 'FORMAT_INVALID';
  override readonly name = 'FormatInvalid';
  readonly object: string;
  readonly offset: number;
  constructor(object: string, offset: number, what: string) {
    super(`${object}: ${what} at offset ${offset}`);
    this.object = object;
    this.offset = offset;
  }
}

/** Grows as needed; every method appends and returns the writer. */
export class ByteWriter {
  #bytes: Uint8Array<ArrayBuffer>;
  #view: DataView;
  #length = 0;

  /** `capacityBytes`: what is expected to be written, so that a large object is not copied while it grows. */
  constructor(capacityBytes: number = initialCapacityBytes) {
    this.#bytes = new Uint8Array(capacityBytes);
    this.#view = new DataView(this.#bytes.buffer);
  }

  get length(): number {
    return this.#length;
  }

  u8(value: number): this {
    requireSafe(value, 0xff);
    const at = this.#reserve(1);
    this.#bytes[at] = value;
    return this;
  }

  u16(value: number): this {
    requireSafe(value, 0xffff);
    const at = this.#reserve(2);
    this.#view.setUint16(at, value);
    return this;
  }

  u32(value: number): this {
    requireSafe(value, 0xffff_ffff);
    const at = this.#reserve(4);
    this.#view.setUint32(at, value);
    return this;
  }

  u64(value: number): this {
    requireSafe(value);
    const at = this.#reserve(8);
    this.#view.setUint32(at, Math.floor(value / 2 ** 32));
    this.#view.setUint32(at + 4, value % 2 ** 32);
    return this;
  }

  /** A 64-bit mask, such as the children of an inner page. */
  mask64(value: bigint): this {
    const at = this.#reserve(8);
    this.#view.setBigUint64(at, value);
    return this;
  }

  varint(value: number): this {
    requireSafe(value);
    let rest = value;
    while (rest >= 0x80) {
      this.u8((rest % 0x80) | 0x80);
      rest = Math.floor(rest / 0x80);
    }
    return this.u8(rest);
  }

  raw(bytes: Uint8Array): this {
    const at = this.#reserve(bytes.length);
    this.#bytes.set(bytes, at);
    return this;
  }

  bytes(bytes: Uint8Array): this {
    return this.varint(bytes.length).raw(bytes);
  }

  text(value: string): this {
    return this.bytes(new TextEncoder().encode(value));
  }

  ascii(value: string): this {
    return this.raw(new TextEncoder().encode(value));
  }

  /** A copy of what was written. */
  finish(): Uint8Array {
    return this.#bytes.slice(0, this.#length);
  }

  #reserve(count: number): number {
    const at = this.#length;
    this.#length += count;
    if (this.#length > this.#bytes.length) this.#grow();
    return at;
  }

  #grow(): void {
    const grown = new Uint8Array(Math.max(this.#length, this.#bytes.length * 2));
    grown.set(this.#bytes);
    this.#bytes = grown;
    this.#view = new DataView(grown.buffer);
  }
}

/** Strict: everything that is not canonical throws FormatInvalid with object and offset. */
export class ByteReader {
  readonly object: string;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #at = 0;

  constructor(object: string, bytes: Uint8Array) {
    this.object = object;
    // A plain view: Buffer's own `slice` would share memory instead of copying.
    this.#bytes = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get offset(): number {
    return this.#at;
  }

  get remaining(): number {
    return this.#bytes.length - this.#at;
  }

  u8(): number {
    return this.#view.getUint8(this.#take(1));
  }

  u16(): number {
    return this.#view.getUint16(this.#take(2));
  }

  u32(): number {
    return this.#view.getUint32(this.#take(4));
  }

  u64(): number {
    const at = this.#take(8);
    const value = this.#view.getUint32(at) * 2 ** 32 + this.#view.getUint32(at + 4);
    if (!Number.isSafeInteger(value)) throw this.invalid('a number above 2^53-1', at);
    return value;
  }

  mask64(): bigint {
    return this.#view.getBigUint64(this.#take(8));
  }

  varint(): number {
    const start = this.#at;
    let value = 0;
    let scale = 1;
    for (let count = 1; ; count++) {
      const byte = this.u8();
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) {
        if (byte === 0 && count > 1) throw this.invalid('a varint that is not in shortest form', start);
        if (!Number.isSafeInteger(value)) throw this.invalid('a varint above 2^53-1', start);
        return value;
      }
      if (count === varintBytesMax) throw this.invalid('a varint of more than 8 bytes', start);
      scale *= 0x80;
    }
  }

  /** A count or length of things that take at least `unitBytes` each: bounded by what is left, so that no lie allocates memory. */
  count(unitBytes: number): number {
    const start = this.#at;
    const value = this.varint();
    if (value * unitBytes > this.remaining) throw this.invalid('a count that does not fit into the object', start);
    return value;
  }

  /** A view, not a copy. */
  raw(length: number): Uint8Array {
    const at = this.#take(length);
    return this.#bytes.subarray(at, at + length);
  }

  bytes(): Uint8Array {
    return this.raw(this.count(1));
  }

  /** A view of what was read from that offset on. */
  since(offset: number): Uint8Array {
    return this.#bytes.subarray(offset, this.#at);
  }

  text(): string {
    const start = this.#at;
    const bytes = this.bytes();
    try {
      return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
    } catch {
      throw this.invalid('text that is not UTF-8', start);
    }
  }

  /** 0 or 1. */
  flag(): boolean {
    const start = this.#at;
    const value = this.u8();
    if (value > 1) throw this.invalid(`a flag of ${value}`, start);
    return value === 1;
  }

  expectAscii(magic: string): void {
    const start = this.#at;
    if (this.remaining < magic.length || new TextDecoder('latin1').decode(this.raw(magic.length)) !== magic) {
      throw this.invalid(`no magic ${magic}`, start);
    }
  }

  expectU16(value: number, what: string): void {
    const start = this.#at;
    const found = this.u16();
    if (found !== value) throw this.invalid(`unknown ${what} ${found}`, start);
  }

  expectRaw(value: Uint8Array, what: string): void {
    const start = this.#at;
    if (!sameBytes(this.raw(value.length), value)) throw this.invalid(`another ${what} than expected`, start);
  }

  end(): void {
    if (this.remaining > 0) throw this.invalid(`${this.remaining} trailing bytes`);
  }

  invalid(what: string, at: number = this.#at): FormatInvalid {
    return new FormatInvalid(this.object, at, what);
  }

  #take(length: number): number {
    const at = this.#at;
    if (length > this.remaining)
      throw this.invalid(`the object ends early (${length} bytes wanted)`, this.#bytes.length);
    this.#at += length;
    return at;
  }
}

export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}

export function toHex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex');
}

/** A value that was cut to fit would be another value: a segment number that is used twice, a key of another epoch. */
function requireSafe(value: number, max: number = Number.MAX_SAFE_INTEGER): void {
  if (!Number.isSafeInteger(value) || value < 0 || value > max) throw new RangeError(`${value} can't be encoded`);
}
