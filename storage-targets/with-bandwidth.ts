import type { Clock } from './clock.ts';
import { systemClock } from './clock.ts';
import type { StorageTarget } from './storage-target.ts';

/** Long waits are cut into pieces, so that a rate changed meanwhile is felt soon. */
const waitMsMax = 1_000;
/** What idle time may earn: enough to make up for timers that wake late, and no burst to speak of. */
const reserveMs = 100;

/**
 * A token bucket that may go into debt: a transfer starts when the bucket is not overdrawn, then takes all it needs. So
 * an object larger than the bucket passes, and the average keeps to the rate. First come, first served.
 */
export class Bandwidth {
  readonly #clock: Clock;
  #bytesPerSecond: number | null;
  #tokens = 0;
  #filledAt: number;
  #turn: Promise<void> = Promise.resolve();

  /** `null`: unlimited. */
  constructor(bytesPerSecond: number | null, clock: Clock = systemClock) {
    this.#clock = clock;
    this.#bytesPerSecond = bytesPerSecond;
    this.#filledAt = clock.now();
  }

  get bytesPerSecond(): number | null {
    return this.#bytesPerSecond;
  }

  /** Takes effect within a second, for waiting transfers too. */
  set(bytesPerSecond: number | null): void {
    this.#fill();
    this.#bytesPerSecond = bytesPerSecond;
  }

  /** Waits for the turn, then takes `bytes`. Rejects with `signal.reason` when cancelled, and then takes nothing. */
  async take(bytes: number, signal: AbortSignal): Promise<void> {
    const before = this.#turn;
    const mine = Promise.withResolvers<void>();
    this.#turn = mine.promise;
    try {
      await settled(before, signal);
      while (this.#debtMs() > 0) await this.#clock.sleep(Math.min(this.#debtMs(), waitMsMax), signal);
      this.charge(bytes);
    } finally {
      // A cancelled transfer leaves the queue only when those before it have had their turn.
      void before.then(mine.resolve);
    }
  }

  /** For bytes that are known only after they came; the next transfer waits for them. */
  charge(bytes: number): void {
    this.#fill();
    this.#tokens -= bytes;
  }

  #debtMs(): number {
    this.#fill();
    if (this.#bytesPerSecond === null || this.#tokens >= 0) return 0;
    return Math.ceil((-this.#tokens / this.#bytesPerSecond) * 1000);
  }

  #fill(): void {
    const now = this.#clock.now();
    const elapsedMs = now - this.#filledAt;
    this.#filledAt = now;
    const rate = this.#bytesPerSecond;
    if (rate === null) this.#tokens = 0;
    else this.#tokens = Math.min((rate * reserveMs) / 1000, this.#tokens + (rate * elapsedMs) / 1000);
  }
}

function settled(before: Promise<void>, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const cancel = () => reject(signal.reason);
    if (signal.aborted) return cancel();
    signal.addEventListener('abort', cancel, { once: true });
    void before.then(() => {
      signal.removeEventListener('abort', cancel);
      resolve();
    });
  });
}

export interface BandwidthLimits {
  readonly upload: Bandwidth;
  readonly download: Bandwidth;
}

/** Paces uploads and downloads separately. Both can be changed while running; requests without a payload are free. */
export function withBandwidth(target: StorageTarget, { upload, download }: BandwidthLimits): StorageTarget {
  return {
    ...unpaced(target),
    async putIfAbsent(name, bytes, options, signal) {
      await upload.take(bytes.length, signal);
      await target.putIfAbsent(name, bytes, options, signal);
    },
    async get(name, range, signal) {
      await download.take(range?.length ?? 0, signal);
      const bytes = await target.get(name, range, signal);
      if (range === null) download.charge(bytes.length);
      return bytes;
    },
  };
}

function unpaced(target: StorageTarget): Omit<StorageTarget, 'putIfAbsent' | 'get'> {
  return {
    description: target.description,
    head: (name, signal) => target.head(name, signal),
    list: (prefix, options, signal) => target.list(prefix, options, signal),
    delete: (names, signal) => target.delete(names, signal),
    extendRetention: (name, until, signal) => target.extendRetention(name, until, signal),
    now: (signal) => target.now(signal),
    [Symbol.asyncDispose]: () => target[Symbol.asyncDispose](),
  };
}
