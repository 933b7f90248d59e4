import type { SegmentLife } from '../../replica/control.ts';
import type { VerifyLevel } from '../../restore/verify/finding.ts';
import type { TargetMetrics } from '../../storage-targets/with-metrics.ts';
import { formatBytes, formatSpeed, plural } from '../quantities.ts';
import { Pace } from './pace.ts';
import type { Progress } from './progress.ts';
import { remaining } from './run-progress.ts';

/** Of a verify of one machine, told by what it asks the store for. `needed`: the segments of the points that are verified. */
export function verifyProgress(
  title: string,
  level: VerifyLevel,
  needed: readonly SegmentLife[],
  asked: TargetMetrics,
  startedMs: number,
): (nowMs: number) => Progress {
  const pace = new Pace(startedMs);
  if (level === 'present') return () => ({ title, facts: [`listing ${plural(needed.length, 'segment')}`] });
  if (level === 'checksum') return (nowMs) => checksums(title, needed.length, asked.head.requests, pace, nowMs);
  // Level full needs no record that only a dropped point needed: then it ends before the bar does.
  const total = needed.reduce((sum, { size }) => sum + size, 0);
  return (nowMs) => {
    const { bytes } = asked.get;
    pace.sample(bytes, nowMs);
    const left = remaining(pace, total);
    return {
      title,
      share: total === 0 ? null : bytes / total,
      facts: [
        ...(left === null ? [] : [left]),
        `${formatBytes(bytes)} of ${level === 'full' ? 'at most ' : ''}${formatBytes(total)}`,
        formatSpeed(pace.perSecond),
      ],
    };
  };
}

function checksums(title: string, total: number, done: number, pace: Pace, nowMs: number): Progress {
  pace.sample(done, nowMs);
  const left = remaining(pace, total);
  return {
    title,
    share: total === 0 ? null : done / total,
    facts: [...(left === null ? [] : [left]), `${Math.min(done, total)} of ${plural(total, 'checksum')}`],
  };
}
