/** Which bytes of a read have arrived. Servers mostly send them in order, which costs one number. */
export class Coverage {
  readonly #length: number;
  /** Everything before it has arrived. */
  #front = 0;
  /** What arrived beyond the front: ascending and disjoint pairs of start and end. */
  readonly #islands: { start: number; end: number }[] = [];

  constructor(length: number) {
    this.#length = length;
  }

  get complete(): boolean {
    return this.#front === this.#length;
  }

  /** The first byte that has not arrived. */
  get firstMissing(): number {
    return this.#front;
  }

  /** False when a part of it is outside the read or has arrived before. */
  add(start: number, length: number): boolean {
    const end = start + length;
    if (start < this.#front || end > this.#length) return false;
    if (!this.#insert(start, end)) return false;
    for (let next = this.#islands[0]; next !== undefined && next.start === this.#front; next = this.#islands[0]) {
      this.#front = next.end;
      this.#islands.shift();
    }
    return true;
  }

  #insert(start: number, end: number): boolean {
    if (this.#islands.length === 0 && start === this.#front) {
      this.#front = end;
      return true;
    }
    const at = this.#firstEndingAfter(start);
    const [before, next] = [this.#islands[at - 1], this.#islands[at]];
    if (next !== undefined && next.start < end) return false;
    if (before?.end === start) before.end = end;
    else this.#islands.splice(at, 0, { start, end });
    return true;
  }

  #firstEndingAfter(start: number): number {
    let [low, high] = [0, this.#islands.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#islands[middle]?.end ?? 0) > start) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}
