import type { RunProgress } from '../protect/replicate-snapshot.ts';
import { formatBytes, formatRemaining, formatSpeed } from '../quantities.ts';
import type { Coverage } from './coverage.ts';
import { Pace } from './pace.ts';
import type { Progress } from './progress.ts';

/** Of a seed, sync or resync of one machine. */
export function runProgress(
  title: string,
  coverage: Coverage,
  counts: RunProgress,
  inFlightBytesMax: number,
  startedMs: number,
): (nowMs: number) => Progress {
  const reading = new Pace(startedMs);
  let covering: Pace | null = null;
  return (nowMs) => {
    const { capacityBytes, coveredBytes } = coverage;
    if (capacityBytes === 0) return { title, facts: ['preparing…'] };
    covering ??= new Pace(nowMs);
    covering.sample(coveredBytes, nowMs);
    reading.sample(counts.readBytes, nowMs);
    const isRead = coveredBytes === capacityBytes;
    const ending = counts.checkedBytes < counts.toCheckBytes ? 'spot check…' : 'finishing…';
    const left = isRead ? ending : remaining(covering, capacityBytes);
    return {
      title,
      share: coveredBytes / capacityBytes,
      facts: [
        ...(left === null ? [] : [left]),
        `${formatBytes(coveredBytes)} of ${formatBytes(capacityBytes)}`,
        `reading ${formatSpeed(reading.perSecond)}`,
      ],
      details: [
        `${formatBytes(counts.uploadedBytes)} sent`,
        ...sized(counts.skippedBytes, 'unchanged'),
        ...sized(counts.checkedBytes, 'spot-checked'),
        ...sized(coverage.untouchedBytes, 'untouched, says tracking'),
        ...sized(coverage.zeroBytes + readAsZero(counts, isRead ? 0 : inFlightBytesMax), 'zero'),
      ],
    };
  };
}

/** Read, and neither changed nor unchanged: it is zero, or on its way through the workers. At least so much is zero. */
function readAsZero({ readBytes, ...counts }: RunProgress, inFlightBytes: number): number {
  const { changedBytes, skippedBytes, checkedBytes } = counts;
  return Math.max(0, readBytes - changedBytes - skippedBytes - checkedBytes - inFlightBytes);
}

export function remaining(pace: Pace, total: number): string | null {
  const remainingMs = pace.remainingMs(total);
  return remainingMs === null ? null : `${formatRemaining(remainingMs)} left`;
}

/** Nothing is not worth its room. */
export function sized(bytes: number, what: string): readonly string[] {
  return bytes === 0 ? [] : [`${formatBytes(bytes)} ${what}`];
}
