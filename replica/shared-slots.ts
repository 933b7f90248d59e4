/** Buffers of one size on shared memory that go round: they are never copied to a worker, and never left to garbage collection. */
export class SharedSlots {
  readonly #bytes: number;
  readonly #free: Uint8Array[] = [];

  constructor(bytes: number) {
    this.#bytes = bytes;
  }

  /** What it held before is still there. */
  take(): Uint8Array {
    return this.#free.pop() ?? new Uint8Array(new SharedArrayBuffer(this.#bytes));
  }

  /** Only when nobody reads it or writes to it any more. */
  give(slot: Uint8Array): void {
    this.#free.push(slot);
  }
}
