import type { Clock } from '../../storage-targets/clock.ts';

/** Time passes only by sleeping, and then at once. Sleepers wake in the order of their time. */
export class SteppedClock implements Clock {
  readonly slept: number[] = [];
  #nowMs = 0;

  now(): number {
    return this.#nowMs;
  }

  async sleep(ms: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    this.slept.push(ms);
    this.#nowMs += ms;
    await Promise.resolve();
  }
}
