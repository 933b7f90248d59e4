/** Bytes of a large disk of which little is written. Chunks are never changed in place, so that a copy costs next to nothing. */

const chunkBytes = 64 * 1024;

export interface Piece {
  readonly offset: number;
  readonly length: number;
  readonly zero: boolean;
}

export class SparseBytes {
  #capacityBytes: number;
  readonly #chunks: Map<number, Uint8Array>;

  constructor(capacityBytes: number, chunks: ReadonlyMap<number, Uint8Array> = new Map()) {
    this.#capacityBytes = capacityBytes;
    this.#chunks = new Map(chunks);
  }

  get capacityBytes(): number {
    return this.#capacityBytes;
  }

  copy(): SparseBytes {
    return new SparseBytes(this.#capacityBytes, this.#chunks);
  }

  /** The whole content; for disks that fit into memory. */
  bytes(): Uint8Array {
    const all = new Uint8Array(this.#capacityBytes);
    this.read(0, all);
    return all;
  }

  read(offset: number, into: Uint8Array): void {
    if (offset < 0 || offset + into.length > this.#capacityBytes) throw new RangeError('a read beyond the disk');
    for (const part of partsOf(offset, into.length)) {
      const chunk = this.#chunks.get(part.chunk);
      const target = into.subarray(part.at, part.at + part.length);
      if (chunk === undefined) target.fill(0);
      else target.set(chunk.subarray(part.inside, part.inside + part.length));
    }
  }

  write(offset: number, bytes: Uint8Array): void {
    if (offset < 0 || offset + bytes.length > this.#capacityBytes) throw new RangeError('a write beyond the disk');
    for (const part of partsOf(offset, bytes.length)) {
      const chunk = Uint8Array.from(this.#chunks.get(part.chunk) ?? new Uint8Array(chunkBytes));
      chunk.set(bytes.subarray(part.at, part.at + part.length), part.inside);
      this.#chunks.set(part.chunk, chunk);
    }
  }

  clear(offset: number, length: number): void {
    const end = Math.min(offset + length, this.#capacityBytes);
    for (const [number, old] of [...this.#chunks]) {
      const from = Math.max(0, offset - number * chunkBytes);
      const to = Math.min(chunkBytes, end - number * chunkBytes);
      if (from >= to) continue;
      const chunk = Uint8Array.from(old).fill(0, from, to);
      if (chunk.every((byte) => byte === 0)) this.#chunks.delete(number);
      else this.#chunks.set(number, chunk);
    }
  }

  /** What a smaller disk loses does not come back when it grows again. */
  resize(capacityBytes: number): void {
    if (capacityBytes < this.#capacityBytes) this.clear(capacityBytes, this.#capacityBytes - capacityBytes);
    this.#capacityBytes = capacityBytes;
    for (const chunk of this.#chunks.keys()) if (chunk * chunkBytes >= capacityBytes) this.#chunks.delete(chunk);
  }

  /** Cuts a range into pieces that hold data or read as zero, on boundaries of `grain` bytes; neighbours of one kind are joined. */
  *pieces(from: number, to: number, grain: number): Generator<Piece> {
    let open = { offset: from, length: 0, zero: false };
    for (let at = from; at < to; ) {
      const next = Math.min(to, this.#nextBoundary(at, grain));
      const zero = !this.#chunks.has(Math.floor(at / chunkBytes)) || this.#isZero(at, next);
      if (open.zero !== zero) {
        if (open.length > 0) yield open;
        open = { offset: at, length: 0, zero };
      }
      open.length += next - at;
      at = next;
    }
    if (open.length > 0) yield open;
  }

  /** Over unwritten chunks in one step. */
  #nextBoundary(at: number, grain: number): number {
    const chunk = Math.floor(at / chunkBytes);
    if (this.#chunks.has(chunk)) return (Math.floor(at / grain) + 1) * grain;
    let next = Number.POSITIVE_INFINITY;
    for (const written of this.#chunks.keys()) if (written > chunk && written < next) next = written;
    return next * chunkBytes;
  }

  #isZero(from: number, to: number): boolean {
    for (const part of partsOf(from, to - from)) {
      const chunk = this.#chunks.get(part.chunk);
      if (chunk === undefined) continue;
      for (let i = part.inside; i < part.inside + part.length; i++) if (chunk[i] !== 0) return false;
    }
    return true;
  }
}

interface Part {
  readonly chunk: number;
  /** Offset in the chunk. */
  readonly inside: number;
  /** Offset in the range. */
  readonly at: number;
  readonly length: number;
}

function* partsOf(offset: number, length: number): Generator<Part> {
  for (let at = 0; at < length; ) {
    const inside = (offset + at) % chunkBytes;
    const part = Math.min(length - at, chunkBytes - inside);
    yield { chunk: Math.floor((offset + at) / chunkBytes), inside, at, length: part };
    at += part;
  }
}
