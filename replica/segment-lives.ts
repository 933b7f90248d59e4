import type { SegmentLife } from './control.ts';
import type { LongList } from './decoded-list.ts';
import type { SegmentId } from './names.ts';
import { compareSegments, parseSegmentKey, segmentKey } from './names.ts';

/**
 * The segments of a replica by `segmentKey`, in columns: 90 bytes each, where objects in a Map took 500. A disk of 4 TiB has 200,000.
 * Ascending by place; those of a new publish come after all others.
 */
export class SegmentLives implements Iterable<[string, SegmentLife]> {
  #columns: Columns;
  #size = 0;

  /** `expected` are not copied while they come. */
  constructor(expected: number = initialSegments) {
    this.#columns = newColumns(expected);
  }

  get size(): number {
    return this.#size;
  }

  get(key: string): SegmentLife | undefined {
    const at = this.#find(parseSegmentKey(key));
    return at < 0 ? undefined : this.#at(at);
  }

  has(key: string): boolean {
    return this.#find(parseSegmentKey(key)) >= 0;
  }

  /** Adds it, or replaces what is known of it. */
  put(life: SegmentLife): void {
    const found = this.#find(life);
    const at = found < 0 ? -1 - found : found;
    if (found < 0) this.#makeRoom(at);
    for (const field of numberFields) this.#columns[field][at] = life[field];
    this.#columns.sha256.set(life.sha256, at * sha256Bytes);
  }

  *values(): Generator<SegmentLife> {
    for (let at = 0; at < this.#size; at++) yield this.#at(at);
  }

  /** A list of them, for as long as nothing more is put. */
  list(): LongList<SegmentLife> {
    return { length: this.#size, [Symbol.iterator]: () => this.values() };
  }

  *keys(): Generator<string> {
    for (const life of this.values()) yield segmentKey(life);
  }

  *[Symbol.iterator](): Generator<[string, SegmentLife]> {
    for (const life of this.values()) yield [segmentKey(life), life];
  }

  #at(at: number): SegmentLife {
    const { tenure, number, size, units, dead, birth, death, sha256 } = this.#columns;
    return {
      tenure: tenure[at] ?? 0,
      number: number[at] ?? 0,
      size: size[at] ?? 0,
      units: units[at] ?? 0,
      dead: dead[at] ?? 0,
      birth: birth[at] ?? 0,
      death: death[at] ?? 0,
      sha256: sha256.slice(at * sha256Bytes, (at + 1) * sha256Bytes),
    };
  }

  /** Where it is, or −1 − the place where it belongs. */
  #find(id: SegmentId): number {
    let low = 0;
    let high = this.#size;
    // Most come in order.
    if (high > 0 && compareSegments(this.#idAt(high - 1), id) < 0) return -1 - high;
    while (low < high) {
      const middle = (low + high) >> 1;
      const order = compareSegments(this.#idAt(middle), id);
      if (order === 0) return middle;
      if (order < 0) low = middle + 1;
      else high = middle;
    }
    return -1 - low;
  }

  #idAt(at: number): SegmentId {
    return { tenure: this.#columns.tenure[at] ?? 0, number: this.#columns.number[at] ?? 0 };
  }

  #makeRoom(at: number): void {
    if (this.#size === this.#columns.tenure.length) this.#grow();
    for (const field of numberFields) this.#columns[field].copyWithin(at + 1, at, this.#size);
    this.#columns.sha256.copyWithin((at + 1) * sha256Bytes, at * sha256Bytes, this.#size * sha256Bytes);
    this.#size++;
  }

  #grow(): void {
    const grown = newColumns(Math.max(initialSegments, Math.ceil(this.#size * growth)));
    for (const field of numberFields) grown[field].set(this.#columns[field]);
    grown.sha256.set(this.#columns.sha256);
    this.#columns = grown;
  }
}

const initialSegments = 64;
const growth = 1.5;
const sha256Bytes = 32;
const numberFields = ['tenure', 'number', 'size', 'units', 'dead', 'birth', 'death'] as const;

type Columns = Readonly<Record<(typeof numberFields)[number], Float64Array>> & { readonly sha256: Uint8Array };

function newColumns(segments: number): Columns {
  const column = (): Float64Array => new Float64Array(segments);
  return {
    tenure: column(),
    number: column(),
    size: column(),
    units: column(),
    dead: column(),
    birth: column(),
    death: column(),
    sha256: new Uint8Array(segments * sha256Bytes),
  };
}
