import type { StorageTarget } from './storage-target.ts';

const dayMs = 24 * 3_600_000;
/** What is locked beyond the period: so much later is the next time that every object has to be touched. */
const spareDaysMin = 10;
const spareShare = 1 / 3;

/**
 * Until when a process locks what it puts: for the period and a spare, from the store's time when it first asked. The host's own clock is
 * never asked: one that jumped would lock objects for years.
 */
export class Retention {
  readonly #periodMs: number;
  #asked: Promise<Date> | null = null;

  constructor(periodDays: number) {
    this.#periodMs = periodDays * dayMs;
  }

  /** The same for all that this process puts. */
  async until(target: Pick<StorageTarget, 'now'>, signal: AbortSignal): Promise<Date> {
    this.#asked ??= this.#from(target, signal);
    try {
      return await this.#asked;
    } catch (error) {
      this.#asked = null;
      throw error;
    }
  }

  /** Whether what is locked until then is locked for the whole period from now on. */
  async covers(untilMs: number, target: Pick<StorageTarget, 'now'>, signal: AbortSignal): Promise<boolean> {
    return untilMs >= (await target.now(signal)).getTime() + this.#periodMs;
  }

  /** From now on, for a process that runs for so long that what it locked at first is not enough any more. */
  renew(): void {
    this.#asked = null;
  }

  async #from(target: Pick<StorageTarget, 'now'>, signal: AbortSignal): Promise<Date> {
    const spareMs = Math.max(spareDaysMin * dayMs, this.#periodMs * spareShare);
    return new Date((await target.now(signal)).getTime() + this.#periodMs + spareMs);
  }
}

/** Puts every object under object lock, but those that have to be removable. */
export function withRetention(
  target: StorageTarget,
  retention: Retention,
  isRemovable: (name: string) => boolean,
): StorageTarget {
  return {
    ...target,
    async putIfAbsent(name, bytes, options, signal) {
      if (isRemovable(name)) return await target.putIfAbsent(name, bytes, options, signal);
      const retainUntil = await retention.until(target, signal);
      await target.putIfAbsent(name, bytes, { ...options, retainUntil }, signal);
    },
  };
}
