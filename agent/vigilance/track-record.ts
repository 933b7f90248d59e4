import { z } from 'zod';
import { type ChangeSample, samplesMax } from './change-alarm.ts';
import { type Credit, credit } from './compaction-credit.ts';
import type { Lap } from './lap.ts';

/** What earlier runs of a machine tell of the next one: how far its tracking was verified, how much it usually changes, and what was wrong. */
export interface TrackRecord {
  readonly laps: readonly Lap[];
  /** Of syncs, oldest first. */
  readonly samples: readonly ChangeSample[];
  /** Oldest first. */
  readonly alarms: readonly Alarm[];
  /** Null: a release that compacted nothing wrote this. */
  readonly compaction: Credit | null;
}

export interface Alarm {
  /** `tracking`: a spot check found it wrong. `change`: the point is flagged. */
  readonly kind: 'tracking' | 'change';
  /** That was published with it; null: none yet. */
  readonly point: number | null;
  /** Snapshot time, in milliseconds since 1970. */
  readonly timeMs: number;
  readonly what: string;
  /** A person has seen it. */
  readonly acknowledged: boolean;
}

export const emptyTrackRecord: TrackRecord = { laps: [], samples: [], alarms: [], compaction: null };

/** With more, those go first that a person has seen. */
const alarmsMax = 1_000;

const time = z.number();
const lap = z.object({
  diskId: z.string(),
  label: z.string(),
  generation: z.number(),
  blockCount: z.int().positive(),
  cursor: z.int().nonnegative(),
  enteredMs: time.nullable(),
  zones: z.array(time.nullable()).min(1),
  begunMs: time,
  lastMs: time,
  owedMs: z.number().nonnegative(),
  doubt: z.string(),
});
const sample = z.object({
  changedBytes: z.number(),
  storedBytes: z.number(),
  elapsedMs: z.number(),
  capacityBytes: z.number(),
  compressed: z.boolean(),
});
const alarm = z.object({
  kind: z.enum(['tracking', 'change']),
  point: z.number().nullable(),
  timeMs: time,
  what: z.string(),
  acknowledged: z.boolean(),
});
const trackRecord = z.object({
  laps: z.array(lap),
  samples: z.array(sample),
  alarms: z.array(alarm),
  compaction: credit.nullable().default(null),
});

export function encodeTrackRecord(record: TrackRecord): Uint8Array {
  return Buffer.from(JSON.stringify(record));
}

/** Null for one that can't be read: nothing is known then, so that nothing is claimed. */
export function parseTrackRecord(bytes: Uint8Array): TrackRecord | null {
  try {
    return trackRecord.safeParse(JSON.parse(Buffer.from(bytes).toString())).data ?? null;
  } catch {
    return null;
  }
}

export function withSample(record: TrackRecord, added: ChangeSample): TrackRecord {
  return { ...record, samples: [...record.samples, added].slice(-samplesMax) };
}

export function withAlarm(record: TrackRecord, added: Alarm): TrackRecord {
  const alarms = [...record.alarms, added];
  while (alarms.length > alarmsMax)
    alarms.splice(
      Math.max(
        0,
        alarms.findIndex(({ acknowledged }) => acknowledged),
      ),
      1,
    );
  return { ...record, alarms };
}

/** The alarms that had no point yet came with this one. */
export function withPoint(record: TrackRecord, point: number): TrackRecord {
  return { ...record, alarms: record.alarms.map((each) => ({ ...each, point: each.point ?? point })) };
}

export function acknowledged(record: TrackRecord): TrackRecord {
  return { ...record, alarms: record.alarms.map((each) => ({ ...each, acknowledged: true })) };
}

/** A run found that tracking lied about this disk: kept at once, so that it is not forgotten when the run fails. */
export function withDoubt(record: TrackRecord, disk: Lap, what: string, timeMs: number): TrackRecord {
  const laps = [...record.laps.filter(({ diskId }) => diskId !== disk.diskId), { ...disk, doubt: what }];
  return withAlarm({ ...record, laps }, { kind: 'tracking', point: null, timeMs, what, acknowledged: false });
}
