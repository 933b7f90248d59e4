import type { Pace } from './storage-target.ts';

/** Calls `late` once that much time has passed, waiting for a pace left out. Whoever makes it disposes it. */
export class TimeLimit implements Disposable {
  readonly #late: () => void;
  #timer: NodeJS.Timeout;
  #pacedMs = 0;
  /** When the waits began that have not ended. A transfer asks for one piece after the other, so there is one at most. */
  readonly #waiting = new Set<number>();
  /** What was waited before is counted. */
  #countedUntil = 0;

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
      this.#waiting.add(since);
      return granted.finally(() => {
        this.#waiting.delete(since);
        this.#pacedMs += performance.now() - Math.max(since, this.#countedUntil);
      });
    };
  }

  #ended(): void {
    const now = performance.now();
    for (const since of this.#waiting) this.#pacedMs += now - Math.max(since, this.#countedUntil);
    this.#countedUntil = now;
    const extraMs = Math.ceil(this.#pacedMs);
    this.#pacedMs = 0;
    if (extraMs === 0) this.#late();
    else this.#timer = setTimeout(() => this.#ended(), extraMs);
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
  }
}
