import { type BitOrder, bitAt, endOfBitRun } from './bit-runs.ts';
import { type FilePages, pageBytes } from './file-pages.ts';

/** A bitmap somewhere in a file, read page by page. */
export interface SectorBitmap {
  readonly pages: FilePages;
  readonly order: BitOrder;
  readonly fileOffset: number;
}

/** The bit at `from`, and where the run of bits like it ends, at most at `to`. */
export async function bitRun(
  { pages, order, fileOffset }: SectorBitmap,
  from: number,
  to: number,
  signal: AbortSignal,
): Promise<{ readonly set: boolean; readonly end: number }> {
  let set: boolean | null = null;
  for (let bit = from; bit < to; ) {
    const byte = fileOffset + Math.floor(bit / 8);
    const page = await pages.page(Math.floor(byte / pageBytes), signal);
    // Bits are counted from the start of the page on.
    const firstBit = bit - ((byte % pageBytes) * 8 + (bit % 8));
    const pageEnd = Math.min(to, firstBit + page.length * 8);
    set ??= bitAt(page, order, bit - firstBit);
    if (bitAt(page, order, bit - firstBit) !== set) return { set, end: bit };
    const end = endOfBitRun(page, order, bit - firstBit, pageEnd - firstBit) + firstBit;
    if (end < pageEnd) return { set, end };
    bit = pageEnd;
  }
  return { set: set ?? false, end: to };
}
