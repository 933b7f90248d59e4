import { toHex } from '../../replica/encoding.ts';
import { lastUnflagged } from '../../replica/retained-points.ts';
import { formatDuration, minuteText, plural } from '../quantities.ts';
import { exitCodes } from '../remedy.ts';
import { unverifiedMs, verifiedToMs } from '../vigilance/lap.ts';
import type { Alarm } from '../vigilance/track-record.ts';
import type { Attention } from './attention.ts';
import type { MachineStatus } from './machine-status.ts';

/** How far changed block tracking was verified, and which alarms nobody has seen yet. */

const alarmsShownMax = 3;

/** `rolling`: by spot checks. `off`: they are switched off. `each run`: every run compares every block. */
type Checking = 'rolling' | 'off' | 'each run';

export interface DiskTracking {
  readonly label: string;
  readonly checking: Checking;
  /** Each block was compared at that time or later; null: some never were. */
  readonly verifiedToMs: number | null;
}

/** Of the disks of the newest point; none where only a key would tell which there are. `everyMs`: 0 where spot checks are off. */
export function trackingOf({ replica, track }: MachineStatus, everyMs: number): readonly DiskTracking[] {
  const manifest = replica?.newest?.manifest;
  return (manifest?.disks ?? []).map(({ label, diskId, referencePoint }) => {
    if (referencePoint === null) return { label, checking: 'each run', verifiedToMs: manifest?.snapshotTimeMs ?? null };
    const lap = track.laps.find((each) => each.diskId === toHex(diskId));
    const checking = everyMs === 0 ? 'off' : 'rolling';
    return { label, checking, verifiedToMs: lap === undefined ? null : verifiedToMs(lap) };
  });
}

/** Of all disks; null where one has blocks that never were compared. */
export function verifiedTo(disks: readonly DiskTracking[]): number | null {
  return disks.reduce<number | null>(
    (oldest, disk) => (oldest === null || disk.verifiedToMs === null ? null : Math.min(oldest, disk.verifiedToMs)),
    Number.POSITIVE_INFINITY,
  );
}

/** In one line; null where nothing is tracked, for then each run compares every block. */
export function trackingLine(status: MachineStatus, everyMs: number): string | null {
  const disks = trackingOf(status, everyMs);
  const tracked = disks.filter(({ checking }) => checking !== 'each run');
  if (tracked.length === 0) return null;
  const time = verifiedTo(tracked);
  const how = everyMs === 0 ? '; spot checks are off: it is trusted blindly' : '';
  return time === null
    ? `tracking was not verified as a whole yet${how}`
    : `tracking verified to ${minuteText(time)}${how}`;
}

export function vigilance(status: MachineStatus, everyMs: number): readonly Attention[] {
  const open = status.track.alarms.filter(({ acknowledged }) => !acknowledged);
  const latest = (kind: Alarm['kind']): readonly Alarm[] => open.filter((alarm) => alarm.kind === kind).toReversed();
  const stale = staleTracking(status, everyMs);
  return [
    ...shown(latest('tracking'), (alarm) => untrusted(alarm, status)),
    ...shown(latest('change'), (alarm) => suspicious(alarm, status)),
    ...(stale === null ? [] : [stale]),
  ];
}

/** The newest; the last of them says how many more there are. */
function shown(alarms: readonly Alarm[], describe: (alarm: Alarm) => Attention): readonly Attention[] {
  const few = alarms.slice(0, alarmsShownMax).map(describe);
  const more = alarms.length - few.length;
  return few.map((each, i) =>
    more > 0 && i === few.length - 1 ? { ...each, what: `${each.what} (and ${plural(more, 'older alarm')})` } : each,
  );
}

function untrusted({ point, what, timeMs }: Alarm, { machine }: MachineStatus): Attention {
  const then =
    point === null
      ? 'the next run reads the whole disk'
      : `point ${point} holds what the whole disk was read for; points before it may lack writes`;
  return {
    state: 'untrusted',
    what: `${minuteText(timeMs)} ${what}: ${then}`,
    fix: `find out what wrote to the disk past its tracking, then: failkit acknowledge ${machine}`,
    exitCode: exitCodes.source,
  };
}

function suspicious({ point, what }: Alarm, { machine, replica, track }: MachineStatus): Attention {
  const flagged = new Set(track.alarms.filter(({ kind }) => kind === 'change').map((alarm) => alarm.point));
  const before = point === null ? null : lastUnflagged(replica?.retained ?? [], (seq) => flagged.has(seq), point);
  const good = before === null ? '' : `the last point before it is ${before}; `;
  return {
    state: 'suspicious',
    what: `point ${point} ${what}: ransomware or a runaway job?`,
    fix: `look at the machine; ${good}if the change was meant: failkit acknowledge ${machine}`,
    exitCode: exitCodes.source,
  };
}

/** Measured at the newest point: a machine that is not synced at all is late, and not less verified. */
function staleTracking(status: MachineStatus, everyMs: number): Attention | null {
  if (everyMs === 0) return null;
  const ids = new Set((status.replica?.newest?.manifest?.disks ?? []).map(({ diskId }) => toHex(diskId)));
  const stale = status.track.laps.filter((lap) => ids.has(lap.diskId) && unverifiedMs(lap) > everyMs);
  if (stale.length === 0) return null;
  const times = stale.map((lap) => verifiedToMs(lap) ?? lap.begunMs);
  return {
    state: 'unverified',
    what: `tracking of ${stale.map(({ label }) => label).join(', ')} verified to ${minuteText(Math.min(...times))}: older than ${formatDuration(everyMs)}`,
    fix: `sync more often, raise spotCheck.maxGiBPerRun, or read everything at once: failkit resync ${status.machine}`,
    exitCode: exitCodes.source,
  };
}
