/**
 * Opened blocks of several disks in memory that is taken once and used again: the bound holds whatever is garbage and not yet collected.
 * A disk's larger blocks take several units. What was asked for longest ago goes first.
 */
export class BlockCache implements Disposable {
  readonly unitBytes: number;
  readonly #slab: Buffer;
  /** By disk and unit, the longest unused first. */
  readonly #slots = new Map<number, number>();
  readonly #unitsMax: number;

  constructor(bytesMax: number, unitBytes: number) {
    this.unitBytes = unitBytes;
    this.#unitsMax = Math.max(1, Math.floor(bytesMax / unitBytes));
    // Untouched pages of it take no memory.
    this.#slab = Buffer.allocUnsafeSlow(this.#unitsMax * unitBytes);
  }

  get bytesMax(): number {
    return this.#slab.length;
  }

  get heldBytes(): number {
    return this.#slots.size * this.unitBytes;
  }

  has(disk: number, unit: number): boolean {
    return this.#slots.has(keyOf(disk, unit));
  }

  /** Copies what the unit holds from `from` on. False: it is not here. */
  copy(disk: number, unit: number, from: number, into: Uint8Array): boolean {
    const key = keyOf(disk, unit);
    const slot = this.#slots.get(key);
    if (slot === undefined) return false;
    this.#slots.delete(key);
    this.#slots.set(key, slot);
    const start = slot * this.unitBytes + from;
    into.set(this.#slab.subarray(start, start + into.length));
    return true;
  }

  /** Consecutive whole units, the first of which is `unit`. */
  put(disk: number, unit: number, bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; at += this.unitBytes)
      this.#putUnit(keyOf(disk, unit + at / this.unitBytes), bytes.subarray(at, at + this.unitBytes));
  }

  [Symbol.dispose](): void {
    // The rest was never touched, and takes no memory yet.
    this.#slab.fill(0, 0, this.heldBytes);
    this.#slots.clear();
  }

  #putUnit(key: number, bytes: Uint8Array): void {
    const slot = this.#slots.get(key) ?? this.#freeSlot();
    this.#slots.delete(key);
    this.#slots.set(key, slot);
    this.#slab.set(bytes, slot * this.unitBytes);
  }

  #freeSlot(): number {
    if (this.#slots.size < this.#unitsMax) return this.#slots.size;
    const [[oldest, slot] = [0, 0]] = this.#slots;
    this.#slots.delete(oldest);
    return slot;
  }
}

/** A disk has at most 2^26 blocks of at most 1 MiB, so 2^40 units leave room. */
function keyOf(disk: number, unit: number): number {
  return disk * 2 ** 40 + unit;
}
