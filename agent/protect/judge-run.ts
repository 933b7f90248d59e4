import { flagged, type Manifest } from '../../replica/manifest.ts';
import { type ChangeLimits, type ChangeSample, remarkableChange } from '../vigilance/change-alarm.ts';
import { type TrackRecord, withAlarm, withSample } from '../vigilance/track-record.ts';
import type { FoundChanges, ReplicatedSnapshot } from './replicate-snapshot.ts';

/** What a run that is about to be published tells of the machine: its point may be flagged, and the next runs know more. */

interface JudgedRun {
  readonly manifest: Manifest;
  readonly track: TrackRecord;
}

interface JudgeOptions {
  readonly compression: number | 'auto';
  readonly changeAlarm: ChangeLimits;
}

export function judgeRun(
  manifest: Manifest,
  previous: Manifest | null,
  { laps, found, credit }: Pick<ReplicatedSnapshot, 'laps' | 'found' | 'credit'>,
  known: TrackRecord,
  { compression, changeAlarm }: JudgeOptions,
): JudgedRun {
  const track = { ...known, laps, compaction: credit };
  // A first copy has nothing to be compared with, and a repair sends what did not change.
  const compared = found.filter(({ mode }) => mode === 'sync' || mode === 'resync');
  if (previous === null || compared.length === 0) return { manifest, track };
  const elapsedMs = manifest.snapshotTimeMs - previous.snapshotTimeMs;
  const sample = sampleOf(compared, elapsedMs, compression !== 0);
  const why = remarkableChange(sample, known.samples, changeAlarm);
  // What a resync found may have changed long ago: it says nothing of how much usually changes.
  const learned = compared.every(({ mode }) => mode === 'sync') ? withSample(track, sample) : track;
  if (why === null) return { manifest, track: learned };
  const alarm = {
    kind: 'change',
    point: null,
    timeMs: manifest.snapshotTimeMs,
    what: why,
    acknowledged: false,
  } as const;
  return { manifest: flagged(manifest, why), track: withAlarm(learned, alarm) };
}

function sampleOf(found: readonly FoundChanges[], elapsedMs: number, compressed: boolean): ChangeSample {
  const sum = (of: (disk: FoundChanges) => number): number => found.reduce((total, disk) => total + of(disk), 0);
  return {
    changedBytes: sum(({ changedBytes }) => changedBytes),
    storedBytes: Math.round(sum(({ storedBytes }) => storedBytes)),
    elapsedMs,
    capacityBytes: sum(({ capacityBytes }) => capacityBytes),
    compressed,
  };
}
