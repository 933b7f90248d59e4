/** Sector bitmaps: a VHDX counts a byte's bits from the lowest on, a VHD from the highest. */
export type BitOrder = 'lowest-first' | 'highest-first';

/** Where the run of equal bits that starts at `from` ends, at most at `to`. Bit numbers within the bytes. */
export function endOfBitRun(bytes: Uint8Array, order: BitOrder, from: number, to: number): number {
  const wanted = bitAt(bytes, order, from);
  const uniform = wanted ? 0xff : 0;
  let bit = from + 1;
  while (bit < to) {
    if (bit % 8 === 0 && to - bit >= 8 && bytes[bit >> 3] === uniform) bit += 8;
    else if (bitAt(bytes, order, bit) === wanted) bit++;
    else return bit;
  }
  return to;
}

export function bitAt(bytes: Uint8Array, order: BitOrder, bit: number): boolean {
  const shift = order === 'lowest-first' ? bit % 8 : 7 - (bit % 8);
  return (((bytes[bit >> 3] ?? 0) >> shift) & 1) === 1;
}
