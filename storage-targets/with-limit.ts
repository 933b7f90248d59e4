import pLimit from 'p-limit';

import { Throttled } from './errors.ts';
import { inTurn } from './in-turn.ts';
import type { ListedObject, StorageTarget } from './storage-target.ts';

/** A store answers many requests at once with SlowDown; those count as one complaint. */
const complaintMs = 1_000;

export interface InFlightLimitOptions {
  /** Requests at once, at most; the limit never grows above it. */
  readonly max: number;
  readonly now?: () => number;
}

/**
 * How many requests may be under way. Additive increase, multiplicative decrease: halved when the store throttles, and
 * one more again after as many successes as are allowed at once. Several targets may share one.
 */
export class InFlightLimit {
  readonly #limit;
  readonly #now: () => number;
  #max: number;
  #successes = 0;
  #lastComplaint = Number.NEGATIVE_INFINITY;

  constructor(options: InFlightLimitOptions) {
    this.#max = options.max;
    this.#now = options.now ?? (() => performance.now());
    this.#limit = pLimit(options.max);
  }

  get current(): number {
    return this.#limit.concurrency;
  }

  get inFlight(): number {
    return this.#limit.activeCount;
  }

  /** Adjustable while running; what is under way finishes first. A limit that was throttled down grows to it by success. */
  setMax(max: number): void {
    const throttledDown = this.current < this.#max;
    this.#limit.concurrency = throttledDown ? Math.min(this.current, max) : max;
    this.#max = max;
  }

  /** Waits for a turn, then does the work. Cancelled while waiting, it rejects at once with `signal.reason`. */
  run<T>(work: () => Promise<T>, signal: AbortSignal): Promise<T> {
    return inTurn(this.#limit, () => this.#observed(work), signal);
  }

  async #observed<T>(work: () => Promise<T>): Promise<T> {
    try {
      const result = await work();
      this.#succeeded();
      return result;
    } catch (error) {
      if (error instanceof Throttled) this.#throttled();
      throw error;
    }
  }

  #succeeded(): void {
    if (++this.#successes < this.current) return;
    this.#successes = 0;
    if (this.current < this.#max) this.#limit.concurrency = this.current + 1;
  }

  #throttled(): void {
    const now = this.#now();
    this.#successes = 0;
    if (now - this.#lastComplaint < complaintMs) return;
    this.#lastComplaint = now;
    this.#limit.concurrency = Math.max(1, Math.floor(this.current / 2));
  }
}

/** Bounds the requests in flight. A listing takes a turn per step, so a slow consumer holds none. */
export function withLimit(target: StorageTarget, limit: InFlightLimit): StorageTarget {
  return {
    description: target.description,
    putIfAbsent: (name, bytes, options, signal) =>
      limit.run(() => target.putIfAbsent(name, bytes, options, signal), signal),
    get: (name, range, signal, options) => limit.run(() => target.get(name, range, signal, options), signal),
    head: (name, signal) => limit.run(() => target.head(name, signal), signal),
    list: (prefix, options, signal) => listInTurn(target.list(prefix, options, signal), limit, signal),
    delete: (names, signal) => limit.run(() => target.delete(names, signal), signal),
    extendRetention: (name, until, signal) => limit.run(() => target.extendRetention(name, until, signal), signal),
    now: (signal) => limit.run(() => target.now(signal), signal),
    [Symbol.asyncDispose]: () => target[Symbol.asyncDispose](),
  };
}

async function* listInTurn(
  objects: AsyncIterable<ListedObject>,
  limit: InFlightLimit,
  signal: AbortSignal,
): AsyncGenerator<ListedObject> {
  const iterator = objects[Symbol.asyncIterator]();
  try {
    for (;;) {
      const step = await limit.run(() => iterator.next(), signal);
      if (step.done) return;
      yield step.value;
    }
  } finally {
    await iterator.return?.();
  }
}
