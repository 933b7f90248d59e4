import pLimit from 'p-limit';

import type { Clock } from './clock.ts';
import { systemClock } from './clock.ts';
import { inTurn } from './in-turn.ts';
import type { Pace } from './storage-target.ts';

/** Long waits are cut into pieces, so that a rate changed meanwhile is felt soon. */
const waitMsMax = 250;
/** What idle time may earn: enough to make up for timers that wake late, and no burst to speak of. */
const reserveMs = 150;
/** What one grant is worth at most. So many transfers take turns this often, and none falls silent. */
const grantMs = 20;
const grantBytesMax = 2 ** 20;
/** What is asked of a peer at once: it sends that as fast as it can. A hundredth of ten seconds. */
const requestMs = 100;
const requestBytesMin = 128 * 1024;
/** Below this share of the rate for each, fewer transfers run at once: half-sent segments are lost with the process. */
const transferBytesPerSecondMin = 512 * 1024;
/** One sends while the other waits for its answer. */
const transfersMin = 2;
/** Smaller ones pass by: at a low rate, control objects must not wait for whole segments. */
const smallTransferBytes = 64 * 1024;

/**
 * A token bucket that may go into debt by one grant, and that may be changed at any time. Transfers ask it for one piece
 * after the other and take turns, first come, first served, so that each goes on steadily.
 */
export class Bandwidth {
  readonly #clock: Clock;
  readonly #transfers = pLimit(transfersMin);
  #bytesPerSecond: number | null;
  #tokens = 0;
  #filledAt: number;
  #queued = 0;
  #turn: Promise<void> = Promise.resolve();

  /** `null`: unlimited. */
  constructor(bytesPerSecond: number | null, clock: Clock = systemClock) {
    this.#clock = clock;
    this.#bytesPerSecond = bytesPerSecond;
    this.#filledAt = clock.now();
    this.#transfers.concurrency = this.#transfersMax();
  }

  get bytesPerSecond(): number | null {
    return this.#bytesPerSecond;
  }

  /** Takes hold within a quarter of a second, for transfers that wait or are under way, too. */
  set(bytesPerSecond: number | null): void {
    this.#fill();
    this.#bytesPerSecond = bytesPerSecond;
    // A grant at the old rate may be seconds of the new one.
    this.#tokens = Math.max(this.#tokens, -this.grantBytes);
    this.#transfers.concurrency = this.#transfersMax();
  }

  /** What should be asked of a peer at once. */
  get requestBytes(): number {
    const rate = this.#bytesPerSecond;
    return rate === null ? Number.POSITIVE_INFINITY : Math.max(requestBytesMin, Math.ceil((rate * requestMs) / 1000));
  }

  /** The most that one grant is. */
  get grantBytes(): number {
    const rate = this.#bytesPerSecond;
    return rate === null ? grantBytesMax : Math.min(grantBytesMax, Math.ceil((rate * grantMs) / 1000));
  }

  /**
   * How many of the next `most` bytes may travel, at least one; at once where nobody has to wait. Rejects with
   * `signal.reason` when cancelled, and then takes nothing.
   */
  grant(most: number, signal: AbortSignal): number | Promise<number> {
    if (this.#queued === 0 && this.#debtMs() === 0) return this.#charge(Math.min(most, this.grantBytes));
    return this.#inTurn(signal, () => this.#charge(Math.min(most, this.grantBytes)));
  }

  /** Grants all of a request in one turn; the next one waits until it is paid for. */
  async prepay(bytes: number, signal: AbortSignal): Promise<void> {
    await this.#inTurn(signal, () => this.#charge(bytes));
  }

  /** Waits until all of them may travel. */
  async take(bytes: number, signal: AbortSignal): Promise<void> {
    for (let left = bytes; left > 0; ) left -= await this.grant(left, signal);
  }

  /** Runs a transfer of so many bytes (`null`: few) once it is its turn. */
  async transfer<T>(bytes: number | null, signal: AbortSignal, work: (pace: Pace) => Promise<T>): Promise<T> {
    const pace: Pace = (most) => this.grant(most, signal);
    if (bytes === null || bytes <= smallTransferBytes) return await work(pace);
    return await inTurn(this.#transfers, () => work(pace), signal);
  }

  async #inTurn(signal: AbortSignal, charge: () => number): Promise<number> {
    const before = this.#turn;
    const mine = Promise.withResolvers<void>();
    this.#turn = mine.promise;
    this.#queued++;
    try {
      await settled(before, signal);
      while (this.#debtMs() > 0) await this.#clock.sleep(Math.min(this.#debtMs(), waitMsMax), signal);
      return charge();
    } finally {
      this.#queued--;
      // A cancelled transfer leaves the queue only when those before it have had their turn.
      void before.then(mine.resolve);
    }
  }

  #charge(bytes: number): number {
    this.#tokens -= bytes;
    return bytes;
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

  #transfersMax(): number {
    const rate = this.#bytesPerSecond;
    if (rate === null) return Number.POSITIVE_INFINITY;
    return Math.max(transfersMin, Math.floor(rate / transferBytesPerSecondMin));
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
