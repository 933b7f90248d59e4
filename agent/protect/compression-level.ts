/** The zstd level that the next stretch is compressed with: as much work as the uplink gives time for. */

/**
 * From what a seed on a fast link takes to what still keeps two cores ahead of 100 Mbit/s. Below 1, a replica is larger for good by
 * what one seed gains (docs/decisions/0053).
 */
const ladder: readonly number[] = [1, 3, 5, 7, 9];
/** So many segments are looked at before each step. */
const segmentsPerStep = 4;
/** Of the time, segments waited for a place in the uplink: then there is time for a better level, … */
const uplinkBusyShare = 0.3;
/** … and so seldom that the processor is what everything waits for. */
const uplinkIdleShare = 0.05;

export interface CompressionLevel {
  /** 0: nothing is compressed. */
  readonly current: number;
  /** A segment went on its way: how long it waited for a place, and how long after the one before it came. */
  noteSegment(waitedMs: number, sinceLastMs: number): void;
}

export function compressionLevel(configured: number | 'auto'): CompressionLevel {
  if (configured === 'auto') return new AdaptiveLevel();
  return { current: configured, noteSegment: () => undefined };
}

class AdaptiveLevel implements CompressionLevel {
  #rung = 0;
  #segments = 0;
  #waitedMs = 0;
  #elapsedMs = 0;

  get current(): number {
    return ladder[this.#rung] ?? 1;
  }

  noteSegment(waitedMs: number, sinceLastMs: number): void {
    this.#waitedMs += waitedMs;
    this.#elapsedMs += sinceLastMs;
    if (++this.#segments < segmentsPerStep) return;
    const share = this.#elapsedMs > 0 ? this.#waitedMs / this.#elapsedMs : 0;
    if (share > uplinkBusyShare) this.#rung = Math.min(this.#rung + 1, ladder.length - 1);
    if (share < uplinkIdleShare) this.#rung = Math.max(this.#rung - 1, 0);
    this.#segments = this.#waitedMs = this.#elapsedMs = 0;
  }
}
