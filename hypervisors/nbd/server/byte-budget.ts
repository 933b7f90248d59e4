/** A bound on bytes, or on anything else that is counted. Those who wait get their share in the order in which they came. */
export class ByteBudget {
  readonly #max: number;
  #taken = 0;
  readonly #waiting: { readonly bytes: number; readonly go: () => void }[] = [];

  constructor(max: number) {
    this.#max = max;
  }

  get taken(): number {
    return this.#taken;
  }

  /** Give back what it resolves with. More than there is at all counts as everything there is. */
  async take(wanted: number, signal: AbortSignal): Promise<number> {
    signal.throwIfAborted();
    const bytes = Math.min(wanted, this.#max);
    if (this.#waiting.length > 0 || this.#taken + bytes > this.#max) await this.#turn(bytes, signal);
    else this.#taken += bytes;
    return bytes;
  }

  give(bytes: number): void {
    this.#taken -= bytes;
    this.#serve();
  }

  /** When it resolves the bytes are taken. */
  #turn(bytes: number, signal: AbortSignal): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const waiter = { bytes, go: () => resolve() };
    this.#waiting.push(waiter);
    const abort = () => {
      const at = this.#waiting.indexOf(waiter);
      if (at === -1) return;
      this.#waiting.splice(at, 1);
      reject(signal.reason);
      // Whoever came later may fit in.
      this.#serve();
    };
    signal.addEventListener('abort', abort, { once: true });
    return promise.finally(() => signal.removeEventListener('abort', abort));
  }

  #serve(): void {
    for (let next = this.#waiting[0]; next !== undefined; next = this.#waiting[0]) {
      if (this.#taken + next.bytes > this.#max) return;
      this.#waiting.shift();
      this.#taken += next.bytes;
      next.go();
    }
  }
}
