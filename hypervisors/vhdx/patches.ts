/** A stretch of a file that reads as something else: bytes, or zeros. */
export interface Patch {
  readonly start: number;
  readonly end: number;
  readonly bytes: Uint8Array | null;
}

/** What was laid over a file, the later over the earlier: ascending and disjoint. */
export class Patches {
  readonly #all: Patch[] = [];

  add(patch: Patch): void {
    if (patch.end <= patch.start) return;
    const from = this.#firstEndingAfter(patch.start);
    let to = from;
    while ((this.#all[to]?.start ?? Number.POSITIVE_INFINITY) < patch.end) to++;
    const covered = this.#all.slice(from, to);
    const kept = covered.flatMap((old) => [cut(old, old.start, patch.start), cut(old, patch.end, old.end)]);
    const [before, after] = [
      kept.filter(({ end }) => end <= patch.start),
      kept.filter(({ start }) => start >= patch.end),
    ];
    this.#all.splice(from, to - from, ...before.filter(isSome), patch, ...after.filter(isSome));
  }

  touches(start: number, end: number): boolean {
    return (this.#all[this.#firstEndingAfter(start)]?.start ?? Number.POSITIVE_INFINITY) < end;
  }

  /** Lays what there is over the bytes of a range. */
  applyTo(into: Uint8Array, offset: number): void {
    const end = offset + into.length;
    for (let i = this.#firstEndingAfter(offset); ; i++) {
      const patch = this.#all[i];
      if (patch === undefined || patch.start >= end) return;
      const { start, bytes } = cut(patch, Math.max(patch.start, offset), Math.min(patch.end, end));
      if (bytes === null) into.fill(0, start - offset, Math.min(patch.end, end) - offset);
      else into.set(bytes, start - offset);
    }
  }

  #firstEndingAfter(at: number): number {
    let [low, high] = [0, this.#all.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#all[middle]?.end ?? 0) > at) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}

function cut({ start, end, bytes }: Patch, from: number, to: number): Patch {
  const [first, last] = [Math.max(start, from), Math.min(end, to)];
  return {
    start: first,
    end: last,
    bytes: bytes === null ? null : bytes.subarray(first - start, Math.max(first, last) - start),
  };
}

function isSome({ start, end }: Patch): boolean {
  return end > start;
}
