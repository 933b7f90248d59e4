import type { Pace } from './storage-target.ts';

/** Calls `late` once that much time has passed, waiting for a pace left out. Whoever makes it disposes it. */
export class TimeLimit implements Disposable {
  readonly #late: () => void;
  #timer: NodeJS.Timeout;
  #pacedMs = 0;

  constructor(ms: number, late: () => void) {
    this.#late = late;
    this.#timer = setTimeout(() => this.#ended(), ms);
  }

  /** The same pace; the time that it makes its transfer wait is added to the limit. */
  leavingOut(pace: Pace): Pace {
    return (most) => {
      const granted = pace(most);
      if (typeof granted === 'number') return granted;
      const since = performance.now();
      return granted.finally(() => {
        this.#pacedMs += performance.now() - since;
      });
    };
  }

  #ended(): void {
    const extraMs = Math.ceil(this.#pacedMs);
    this.#pacedMs = 0;
    if (extraMs === 0) this.#late();
    else this.#timer = setTimeout(() => this.#ended(), extraMs);
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
  }
}
