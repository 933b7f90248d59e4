import { Interrupted } from '../../agent/interrupt.ts';

/**
 * What becomes of the one call that goes wrong. `refused`: not carried out, an error. `lost`: carried out, an error all the same.
 * `hangs`: no answer until the run is stopped, and never carried out. `hangs-late`: carried out, and the answer never comes.
 */
export type FaultHow = 'refused' | 'lost' | 'hangs' | 'hangs-late';

const hangMs = 10;

/** Counts the I/O calls of a run, lets one of them go wrong, and notices calls that begin after the run has ended. */
export class FaultPlan {
  readonly #at: number;
  readonly #how: FaultHow;
  readonly #controller = new AbortController();
  #calls = 0;
  #ended = false;
  /** What went wrong; null while nothing did. */
  fired: string | null = null;
  /** Calls that began when nobody waited for them any more. */
  readonly stragglers: string[] = [];

  /** The `at`-th call goes wrong, from 1. */
  constructor(at: number, how: FaultHow) {
    this.#at = at;
    this.#how = how;
  }

  /** For the run: aborted a moment after a call began to hang. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  get calls(): number {
    return this.#calls;
  }

  end(): void {
    this.#ended = true;
  }

  async around<T>(call: string, failure: () => Error, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    if (!this.#isDue(call)) return await work();
    if (this.#how === 'refused') throw failure();
    const result = this.#how === 'hangs' ? null : await work();
    if (this.#how === 'lost') throw failure();
    await this.#hang(signal);
    throw new Error(`nothing to answer with: ${String(result)}`);
  }

  /** A call that blocks the thread can't hang: it goes wrong instead. */
  aroundSync<T>(call: string, failure: () => Error, work: () => T): T {
    if (!this.#isDue(call)) return work();
    if (this.#how === 'lost' || this.#how === 'hangs-late') work();
    throw failure();
  }

  #isDue(call: string): boolean {
    if (this.#ended) this.stragglers.push(call);
    this.#calls++;
    if (this.#calls !== this.#at) return false;
    this.fired = call;
    return true;
  }

  async #hang(signal: AbortSignal): Promise<never> {
    setTimeout(() => this.#controller.abort(new Interrupted('stopped by the test')), hangMs);
    return await new Promise((_, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason), { once: true });
    });
  }
}
