import type { RestoreProgress } from '../../restore/restore-disk.ts';
import type { RestoreSink } from '../../restore/sinks/sink.ts';
import { formatBytes, formatSpeed } from '../quantities.ts';
import { Pace } from './pace.ts';
import type { Progress } from './progress.ts';
import { remaining, sized } from './run-progress.ts';

/** How far into its outputs a restore has come; free space is skipped, and so a count of bytes would not tell. */
export class OutputPositions {
  readonly #ends = new Map<RestoreSink, number>();

  get reachedBytes(): number {
    return [...this.#ends.values()].reduce((sum, end) => sum + end, 0);
  }

  watch(sink: RestoreSink): RestoreSink {
    const reach = (end: number): void => {
      this.#ends.set(sink, Math.max(end, this.#ends.get(sink) ?? 0));
    };
    return {
      description: sink.description,
      startsZeroed: sink.startsZeroed,
      mayHoldContent: sink.mayHoldContent,
      async write(offset, bytes, signal) {
        await sink.write(offset, bytes, signal);
        reach(offset + bytes.length);
      },
      async read(offset, into, signal) {
        await sink.read(offset, into, signal);
        reach(offset + into.length);
      },
      direct: sink.direct && { ...sink.direct, noteWritten: reach },
      complete: (signal) => sink.complete(signal),
      [Symbol.asyncDispose]: () => sink[Symbol.asyncDispose](),
    };
  }
}

export function restoreProgress(
  title: string,
  capacityBytes: number,
  positions: OutputPositions,
  counts: RestoreProgress,
  startedMs: number,
): (nowMs: number) => Progress {
  const reaching = new Pace(startedMs);
  const writing = new Pace(startedMs);
  return (nowMs) => {
    const { reachedBytes } = positions;
    reaching.sample(reachedBytes, nowMs);
    writing.sample(counts.writtenBytes, nowMs);
    const left = remaining(reaching, capacityBytes);
    return {
      title,
      share: capacityBytes === 0 ? null : reachedBytes / capacityBytes,
      facts: [
        ...(left === null ? [] : [left]),
        `${formatBytes(reachedBytes)} of ${formatBytes(capacityBytes)}`,
        `writing ${formatSpeed(writing.perSecond)}`,
      ],
      details: [
        `${formatBytes(counts.fetchedBytes)} fetched`,
        `${formatBytes(counts.writtenBytes)} written`,
        ...sized(counts.keptBytes, 'in place already'),
      ],
    };
  };
}
