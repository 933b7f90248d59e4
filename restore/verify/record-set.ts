import { type SegmentId, segmentKey } from '../../replica/names.ts';
import type { RecordAddress } from '../../replica/segment.ts';

export type RecordId = Pick<RecordAddress, 'tenure' | 'number' | 'record'>;

/** A set of records: one bit for each, so that it stays small for a replica of any size. */
export class RecordSet {
  readonly #bits = new Map<string, Uint8Array>();

  /** False when it was in the set already. */
  add(at: RecordId): boolean {
    const bits = this.#bitsFor(at, at.record);
    const [byte, mask] = [at.record >> 3, 1 << (at.record & 7)];
    const before = bits[byte] ?? 0;
    bits[byte] = before | mask;
    return (before & mask) === 0;
  }

  has(at: RecordId): boolean {
    return (((this.#bits.get(segmentKey(at))?.[at.record >> 3] ?? 0) >> (at.record & 7)) & 1) === 1;
  }

  get isEmpty(): boolean {
    return this.#bits.size === 0;
  }

  #bitsFor(id: SegmentId, record: number): Uint8Array {
    const key = segmentKey(id);
    const known = this.#bits.get(key);
    if (known !== undefined && record >> 3 < known.length) return known;
    const grown = new Uint8Array(Math.max(8, 2 ** Math.ceil(Math.log2((record >> 3) + 1))));
    if (known !== undefined) grown.set(known);
    this.#bits.set(key, grown);
    return grown;
  }
}
