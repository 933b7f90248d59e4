import { SnapshotIncomplete } from '../../hypervisors/errors.ts';
import { blockCountOf } from '../../replica/block-map.ts';
import { toHex } from '../../replica/encoding.ts';
import {
  afterFullRead,
  afterNoShare,
  afterShare,
  type BlockRange,
  type DiskIdentity,
  isLapOf,
  type Lap,
  newLap,
  shareOf,
  verifiedToMs,
} from '../vigilance/lap.ts';
import type { DiskDecision } from './plan-disks.ts';

/** A rolling re-read of what changed block tracking says did not change: docs/decisions/0059. */

const dayMs = 24 * 60 * 60 * 1000;

export interface SpotCheckLimits {
  /** Each block is checked once in so long; 0: none is. */
  readonly everyMs: number;
  /** Of a run, all disks of the machine together. */
  readonly bytesPerRunMax: number;
}

/** Tracking said that a block did not change, and it did. The message is the reason shown to the operator. */
export class SpotCheckMismatch extends Error {
  readonly code = 'SPOT_CHECK_MISMATCH';
  override readonly name = 'SpotCheckMismatch';
}

export interface SpotCheck {
  readonly ranges: readonly BlockRange[];
  readonly blocks: number;
  /** What is known of the disk now; null where nothing is tracked. */
  readonly known: Lap | null;
  /** What is known of the disk once the point is published; null where nothing is tracked: each run reads everything. */
  readonly next: Lap | null;
}

export interface SpotCheckTime {
  /** Of the snapshot. */
  readonly nowMs: number;
  /** Of all disks of the machine: each gets its share of what a run may read. */
  readonly capacityBytes: number;
  readonly limits: SpotCheckLimits;
}

/** What a run that asks for changes checks besides. `lap`: what is known of the disk, if anything. */
export function planSpotCheck(
  decision: DiskDecision,
  lap: Lap | null,
  { nowMs, capacityBytes, limits }: SpotCheckTime,
): SpotCheck {
  const disk = identityOf(decision);
  if (decision.since === null || disk.blockCount === 0) return afterWholeDisk(decision, lap, nowMs);
  const known = lap !== null && isLapOf(lap, disk) ? { ...lap, label: disk.label } : newLap(disk, nowMs);
  const wanted = limits.everyMs !== 0;
  if (wanted && decision.source.changesOnly) requireRecentLap(known, nowMs, limits);
  if (!wanted || decision.source.changesOnly) return { ranges: [], blocks: 0, known, next: afterNoShare(known, nowMs) };
  const budgetBytes = (limits.bytesPerRunMax * decision.geometry.capacityBytes) / Math.max(1, capacityBytes);
  const pace = { everyMs: limits.everyMs, blocksMax: Math.ceil(budgetBytes / decision.geometry.blockSize) };
  const share = shareOf(known, nowMs, pace);
  return { ...share, known, next: afterShare(known, nowMs, pace, share) };
}

/** Of a snapshot that holds nothing but changes no block can be checked: every so often the disk is read whole instead. */
function requireRecentLap(known: Lap, nowMs: number, { everyMs }: SpotCheckLimits): void {
  const checkedMs = verifiedToMs(known) ?? known.begunMs;
  if (nowMs - checkedMs < everyMs) return;
  throw new SnapshotIncomplete(
    `disk ${known.label} was last read whole ${Math.floor((nowMs - checkedMs) / dayMs)} days ago: its source shows changes only, so that no block is checked in between`,
  );
}

/** A full listing compares every block with the newest point: nothing is left to check. */
export function afterWholeDisk(decision: DiskDecision, lap: Lap | null, nowMs: number): SpotCheck {
  const disk = identityOf(decision);
  const tracks = decision.source.referencePoint !== null && disk.blockCount > 0;
  const before = lap !== null && isLapOf(lap, disk) ? lap : null;
  return { ranges: [], blocks: 0, known: before, next: tracks ? afterFullRead(disk, before, nowMs) : null };
}

function identityOf({ geometry, generation, source }: DiskDecision): DiskIdentity {
  return { diskId: toHex(geometry.diskId), label: source.label, generation, blockCount: blockCountOf(geometry) };
}
