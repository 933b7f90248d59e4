/**
 * How far a disk's changed block tracking was verified: a cursor walks over the disk, lap after lap, and the blocks that it passes are
 * read again although nothing is said to have written to them. Pure arithmetic; times are those of snapshots, in milliseconds since 1970.
 */

/** Parts of a disk whose times are kept: with laps of 30 days a claim is right to half a day, and never too young. */
const zonesMax = 60;

export interface Lap {
  /** Of the disk, as hex. */
  readonly diskId: string;
  readonly label: string;
  readonly generation: number;
  readonly blockCount: number;
  /** The next block to be checked. */
  readonly cursor: number;
  /** When the cursor entered the zone that it stands in; null where it stands at the zone's beginning. */
  readonly enteredMs: number | null;
  /** Of each zone, when the block of it that was checked the longest ago was checked; null: not all of it ever was. */
  readonly zones: readonly (number | null)[];
  /** When this record began. */
  readonly begunMs: number;
  /** Snapshot time of the newest point. */
  readonly lastMs: number;
  /** Time whose share of the disk is still to be checked. */
  readonly owedMs: number;
  /** Why the next run has to read the whole disk, where one found out and published nothing; empty: no reason. */
  readonly doubt: string;
}

/** Which blocks a run checks: consecutive ones from the cursor on, perhaps over the end of the disk. */
export interface LapShare {
  readonly ranges: readonly BlockRange[];
  readonly blocks: number;
}

/** Blocks from `first` up to, not including, `end`. */
export interface BlockRange {
  readonly first: number;
  readonly end: number;
}

export interface LapPace {
  /** Each block is to be checked once in so long. */
  readonly everyMs: number;
  /** What one run may check, whatever is due. */
  readonly blocksMax: number;
}

export type DiskIdentity = Pick<Lap, 'diskId' | 'label' | 'generation' | 'blockCount'>;

/** Nothing was checked yet. */
export function newLap(disk: DiskIdentity, nowMs: number): Lap {
  const zones = new Array(zoneCountOf(disk.blockCount)).fill(null);
  return {
    ...identityOf(disk),
    cursor: 0,
    enteredMs: null,
    zones,
    begunMs: nowMs,
    lastMs: nowMs,
    owedMs: 0,
    doubt: '',
  };
}

function identityOf({ diskId, label, generation, blockCount }: DiskIdentity): DiskIdentity {
  return { diskId, label, generation, blockCount };
}

export function isLapOf(lap: Lap, { diskId, generation, blockCount }: Omit<DiskIdentity, 'label'>): boolean {
  return lap.diskId === diskId && lap.generation === generation && lap.blockCount === blockCount;
}

/** The whole disk was read and compared. */
export function afterFullRead(disk: DiskIdentity, before: Lap | null, nowMs: number): Lap {
  const { cursor } = before ?? newLap(disk, nowMs);
  const atStart = zoneStart(disk.blockCount, zoneOf(disk.blockCount, cursor)) === cursor;
  const zones = new Array(zoneCountOf(disk.blockCount)).fill(nowMs);
  return { ...newLap(disk, nowMs), cursor, enteredMs: atStart ? null : nowMs, zones };
}

/** What a run has to check whose snapshot was taken at `nowMs`. */
export function shareOf(lap: Lap, nowMs: number, pace: LapPace): LapShare {
  const at = afterClock(lap, nowMs);
  const due = Math.max(owedBlocks(at, nowMs, pace), urgentBlocks(at, nowMs, pace));
  const blocks = Math.min(lap.blockCount, due, pace.blocksMax);
  const end = lap.cursor + blocks;
  const ranges = [
    { first: 0, end: end - lap.blockCount },
    { first: lap.cursor, end: Math.min(end, lap.blockCount) },
  ];
  return { ranges: ranges.filter((range) => range.first < range.end), blocks };
}

/** After a run that checked that share was published. */
export function afterShare(lap: Lap, nowMs: number, pace: LapPace, { blocks }: LapShare): Lap {
  const at = afterClock(lap, nowMs);
  const owedMs = Math.max(0, owedAt(at, nowMs, pace) - (blocks * lapMs(at, pace)) / lap.blockCount);
  if (blocks >= lap.blockCount) return { ...afterFullRead(lap, at, nowMs), begunMs: at.begunMs };
  const zones = [...at.zones];
  let { cursor, enteredMs } = at;
  for (let left = blocks; left > 0; ) {
    const zone = zoneOf(lap.blockCount, cursor);
    const step = Math.min(left, zoneStart(lap.blockCount, zone + 1) - cursor);
    enteredMs ??= nowMs;
    cursor += step;
    left -= step;
    if (cursor < zoneStart(lap.blockCount, zone + 1)) continue;
    zones[zone] = enteredMs;
    enteredMs = null;
    cursor %= lap.blockCount;
  }
  return { ...at, cursor, enteredMs, zones, lastMs: nowMs, owedMs };
}

/** Without any check: time goes on, and nothing is owed for it. */
export function afterNoShare(lap: Lap, nowMs: number): Lap {
  return { ...afterClock(lap, nowMs), lastMs: nowMs, owedMs: 0 };
}

/** Every block was checked at that time or later; null: some never were. */
export function verifiedToMs({ zones }: Lap): number | null {
  let oldest = Number.POSITIVE_INFINITY;
  for (const zone of zones) {
    if (zone === null) return null;
    oldest = Math.min(oldest, zone);
  }
  return oldest;
}

/** How long before the newest point the oldest check was: what more than `everyMs` of breaks the promise. */
export function unverifiedMs(lap: Lap): number {
  return lap.lastMs - (verifiedToMs(lap) ?? lap.begunMs);
}

/** The last of them lies behind the last zone. */
function zoneStart(blockCount: number, zone: number): number {
  return Math.ceil((zone * blockCount) / zoneCountOf(blockCount));
}

function zoneOf(blockCount: number, block: number): number {
  return Math.floor((block * zoneCountOf(blockCount)) / blockCount);
}

function zoneCountOf(blockCount: number): number {
  return Math.min(zonesMax, blockCount);
}

/**
 * A clock that went back was wrong before, by at least so much; nobody knows since when. All times move along, so that no block is
 * said to have been checked later than it was.
 */
function afterClock(lap: Lap, nowMs: number): Lap {
  const back = lap.lastMs - nowMs;
  if (back <= 0) return lap;
  return {
    ...lap,
    zones: lap.zones.map((time) => (time === null ? null : time - back)),
    enteredMs: lap.enteredMs === null ? null : lap.enteredMs - back,
    begunMs: lap.begunMs - back,
    lastMs: nowMs,
  };
}

/** A little less than `everyMs`, so that a zone's end is reached before the check of its beginning is too old. */
function lapMs({ zones }: Lap, { everyMs }: LapPace): number {
  return (everyMs * zones.length) / (zones.length + 1);
}

/** More than one lap is never owed: that would check the same blocks twice. */
function owedAt(lap: Lap, nowMs: number, pace: LapPace): number {
  return Math.min(lapMs(lap, pace), lap.owedMs + Math.max(0, nowMs - lap.lastMs));
}

function owedBlocks(lap: Lap, nowMs: number, pace: LapPace): number {
  return Math.floor((owedAt(lap, nowMs, pace) / lapMs(lap, pace)) * lap.blockCount);
}

/** Zones that would be too old before the next run, if that comes as long after this one as this one after the last. */
function urgentBlocks(lap: Lap, nowMs: number, { everyMs }: LapPace): number {
  const nextMs = nowMs + Math.max(0, nowMs - lap.lastMs);
  const first = zoneOf(lap.blockCount, lap.cursor);
  let blocks = 0;
  for (let i = 0; i < lap.zones.length; i++) {
    const zone = (first + i) % lap.zones.length;
    if ((lap.zones[zone] ?? lap.begunMs) + everyMs > nextMs) break;
    blocks += zoneStart(lap.blockCount, zone + 1) - Math.max(zoneStart(lap.blockCount, zone), i === 0 ? lap.cursor : 0);
  }
  return blocks;
}
