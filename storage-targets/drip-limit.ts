import { StoreUnavailable } from './errors.ts';

/** An answer that brings less than this in such a time is given up: asked for again, it comes over another connection. */
export const dripWindowMs = 20_000;
const dripBytesMin = 1024;

/** Watches an answer's body come: silence is not the only way of never ending. Whoever makes it disposes it. */
export class DripLimit implements Disposable {
  readonly #timer: NodeJS.Timeout;
  #bytes = 0;
  /** We made the store wait ourselves, in this window or up to now. */
  #excused = false;
  #held = false;

  /** `late` is called with the reason, again and again until it is disposed. */
  constructor(late: (reason: StoreUnavailable) => void) {
    this.#timer = setInterval(() => {
      const dripped = this.#bytes < dripBytesMin && !this.#excused && !this.#held;
      if (dripped)
        late(new StoreUnavailable(`the store's answer only drips: ${this.#bytes} bytes in ${dripWindowMs} ms`));
      this.#bytes = 0;
      this.#excused = false;
    }, dripWindowMs);
  }

  note(bytes: number): void {
    this.#bytes += bytes;
  }

  /** From now on nothing is taken from the connection. */
  hold(): void {
    this.#held = true;
  }

  goOn(): void {
    this.#held = false;
    this.#excused = true;
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}
