import type { Extent } from '../hypervisor.ts';
import { QmpLost } from './kvm-errors.ts';

/** What QEMU pushes of a disk, in ascending order, kept until it is read. Whoever pushes waits while too much is unread. */

export const heldBytesMax = 64 * 1024 * 1024;

interface Held {
  readonly offset: number;
  readonly bytes: Uint8Array;
  unread: number;
}

export class PushedExtents {
  readonly #extents: Extent[] = [];
  #held: Held[] = [];
  #heldBytes = 0;
  #end = 0;
  #over = false;
  /** Nobody waits any more: what is too much is not kept, and has to be fetched again. */
  #dropping = false;
  #changed = Promise.withResolvers<void>();

  /** Resolves when there is room for more. Throws QmpLost for what is out of order. */
  async take(offset: number, bytes: Uint8Array, signal: AbortSignal): Promise<void> {
    this.#advance(offset, bytes.length);
    // The caller has its bytes back when this resolves.
    if (!this.#dropping || this.#heldBytes < heldBytesMax) this.#hold(offset, bytes.slice());
    this.#extents.push({ offset, length: bytes.length, zero: false });
    this.#wake();
    while (this.#heldBytes > heldBytesMax && !this.#dropping) await this.#next(signal);
  }

  takeZeroes(offset: number, length: number): void {
    this.#advance(offset, length);
    this.#extents.push({ offset, length, zero: true });
    this.#wake();
  }

  /** Nothing comes any more. */
  finish(): void {
    this.#over = true;
    this.#wake();
  }

  /** From now on it takes all that comes, and keeps what there is room for. */
  stopWaiting(): void {
    this.#dropping = true;
    this.#wake();
  }

  /** The next one; null after the last. */
  async nextExtent(signal: AbortSignal): Promise<Extent | null> {
    for (;;) {
      const extent = this.#extents.shift();
      if (extent !== undefined) return extent;
      if (this.#over) return null;
      await this.#next(signal);
    }
  }

  /** Fills `into` with what is held of that range, and returns the ranges that are not. What was read is let go. */
  read(offset: number, into: Uint8Array): { readonly offset: number; readonly length: number }[] {
    const missing: { offset: number; length: number }[] = [];
    const end = offset + into.length;
    let at = offset;
    for (const held of this.#held) {
      const heldEnd = held.offset + held.bytes.length;
      if (heldEnd <= at) continue;
      if (held.offset >= end) break;
      if (held.offset > at) missing.push({ offset: at, length: held.offset - at });
      const from = Math.max(at, held.offset);
      const to = Math.min(end, heldEnd);
      into.set(held.bytes.subarray(from - held.offset, to - held.offset), from - offset);
      held.unread -= to - from;
      at = to;
    }
    if (at < end) missing.push({ offset: at, length: end - at });
    this.#release();
    return missing;
  }

  #advance(offset: number, length: number): void {
    if (offset < this.#end) throw new QmpLost(`QEMU pushed offset ${offset} after ${this.#end}: out of order`);
    this.#end = offset + length;
  }

  #hold(offset: number, bytes: Uint8Array): void {
    this.#held.push({ offset, bytes, unread: bytes.length });
    this.#heldBytes += bytes.length;
  }

  #release(): void {
    const kept = this.#held.filter(({ unread }) => unread > 0);
    if (kept.length === this.#held.length) return;
    this.#held = kept;
    this.#heldBytes = kept.reduce((sum, { bytes }) => sum + bytes.length, 0);
    this.#wake();
  }

  #wake(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }

  async #next(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const aborted = Promise.withResolvers<never>();
    const onAbort = (): void => aborted.reject(signal.reason);
    signal.addEventListener('abort', onAbort);
    aborted.promise.catch(() => undefined);
    try {
      await Promise.race([this.#changed.promise, aborted.promise]);
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }
}
