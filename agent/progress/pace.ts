/** How fast something grows, smoothed, and when it will be done. */

/** What lies further back counts less and less. */
const memoryMs = 20_000;
/** Before, any guess is one of the start: connections, caches, threads. */
const firstGuessMs = 3_000;
const firstGuessShare = 0.005;
/** Longer than this is no estimate but a complaint. */
const remainingMsMax = 30 * 24 * 3_600_000;

export class Pace {
  readonly #startedMs: number;
  #lastMs: number;
  #done = 0;
  /** Decaying sums: their ratio is the rate, and needs no correction for a short past. */
  #grown = 0;
  #passedMs = 0;

  constructor(nowMs: number) {
    this.#startedMs = nowMs;
    this.#lastMs = nowMs;
  }

  sample(done: number, nowMs: number): void {
    const passedMs = nowMs - this.#lastMs;
    if (passedMs <= 0) return;
    const kept = Math.exp(-passedMs / memoryMs);
    // What is counted anew has not become less.
    this.#grown = this.#grown * kept + Math.max(0, done - this.#done);
    this.#passedMs = this.#passedMs * kept + passedMs;
    this.#done = done;
    this.#lastMs = nowMs;
  }

  get perSecond(): number {
    return this.#passedMs === 0 ? 0 : (this.#grown / this.#passedMs) * 1000;
  }

  /** Null where nobody can tell: at the start, and where nothing moves. */
  remainingMs(total: number): number | null {
    if (this.#lastMs - this.#startedMs < firstGuessMs || this.#done < total * firstGuessShare) return null;
    const remainingMs = ((total - this.#done) / this.perSecond) * 1000;
    return remainingMs <= remainingMsMax ? Math.max(0, remainingMs) : null;
  }
}
