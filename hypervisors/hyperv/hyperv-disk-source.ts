import { ChangeTrackingLost } from '../errors.ts';
import type { BlockSource, Extent } from '../hypervisor.ts';
import { diskExtents, diskRuns } from '../vhdx/chain-reader.ts';
import { readsOf } from '../vhdx/chain-source.ts';
import type { ImageChain } from '../vhdx/image-chain.ts';
import { changedRanges } from './changed-ranges.ts';
import { freeRanges, unitedRanges } from './free-ranges.ts';
import type { HypervDisk, HypervState } from './hyperv-calls.ts';
import { HypervAnswerInvalid, HypervRefused } from './hyperv-errors.ts';
import type { HypervSite } from './hyperv-site.ts';
import { standsFor } from './make-way.ts';
import { encodeReferencePoint, type HypervReferencePoint, runSince } from './reference-point.ts';

/** A disk of a checkpoint: Hyper-V says what changed, and the files below the checkpoint have the bytes. */

export interface FrozenDisk {
  readonly site: HypervSite;
  readonly state: HypervState;
  readonly disk: HypervDisk;
  readonly chain: ImageChain;
  /** Null where its changes are not tracked. */
  readonly point: HypervReferencePoint | null;
}

export function hypervBlockSource(frozen: FrozenDisk): BlockSource {
  const { disk, chain, point } = frozen;
  return {
    ...readsOf(chain),
    label: disk.label,
    referencePoint: point === null ? null : encodeReferencePoint(point),
    changedExtents: (since, signal) =>
      since === null ? diskExtents(chain, signal) : extentsSince(frozen, since, signal),
  };
}

/** Whether it could be told is written down: failkit doctor shows where it can't, time and again. */
async function* extentsSince(frozen: FrozenDisk, since: Uint8Array, signal: AbortSignal): AsyncGenerator<Extent> {
  const { site, disk } = frozen;
  signal.throwIfAborted();
  try {
    yield* trackedExtents(frozen, since, signal);
    await site.journal.noteKnown(disk.label);
  } catch (error) {
    const lost = asLost(disk.label, error);
    if (lost === null) throw error;
    await site.journal.noteLoss(disk.label, lost.message);
    throw lost;
  }
}

async function* trackedExtents(frozen: FrozenDisk, since: Uint8Array, signal: AbortSignal): AsyncGenerator<Extent> {
  const { site, disk, chain, point } = frozen;
  const run = runSince(disk.label, since, point);
  const tracked = {
    ...{ path: disk.path, since: trackingSince(frozen, run) },
    ...{ capacityBytes: point?.capacityBytes ?? 0, sectorBytes: point?.sectorBytes ?? 0 },
  };
  const changed = changedRanges(site.client, tracked, signal);
  for await (const { offset, length } of unitedRanges(changed, freeRanges(chain, signal)))
    for await (const { offset: at, length: bytes, file } of diskRuns(chain, offset, offset + length, signal))
      yield { offset: at, length: bytes, zero: file === null };
}

/** Null: it is another failure. */
function asLost(label: string, error: unknown): ChangeTrackingLost | null {
  if (error instanceof ChangeTrackingLost) return error;
  if (!(error instanceof HypervRefused) && !(error instanceof HypervAnswerInvalid)) return null;
  return new ChangeTrackingLost(
    `disk ${label}: Hyper-V can't tell what changed since the last point${whyLost(error)}: ${error.message}`,
    { cause: error },
  );
}

/** The id by which Hyper-V is asked: of the run's own reference point, or of the older one that stands in for it. */
function trackingSince({ site, state, disk, point }: FrozenDisk, run: string): string {
  const lost = (why: string): ChangeTrackingLost => new ChangeTrackingLost(`disk ${disk.label}: ${why}`);
  const stands = standsFor(site, run);
  if (stands === null) throw lost('no reference point of the last point is there');
  if (state.referencePoints.every(({ id }) => id !== stands.referencePoint))
    throw lost('somebody removed the reference point of the last point from Hyper-V');
  const then = stands.disks.find(({ key }) => key === disk.key);
  if (then?.identity !== point?.identity || then?.capacityBytes !== point?.capacityBytes)
    throw lost('another disk was there, or of another size, when the reference point was made');
  const tracking = stands.tracking[disk.key] ?? '';
  if (tracking === '') throw lost('Hyper-V gave it no tracking id at the last point');
  return tracking;
}

/** https://learn.microsoft.com/windows/win32/vstor/virtual-storage-error-codes */
const reasons: Readonly<Record<string, string>> = {
  '0xC03A0020': ' (tracking had not begun)',
  '0xC03A0021': ' (its change log grew too large)',
  '0xC03A0022': ' (the disk was changed while it was detached)',
  '0xC03A0023': ' (its tracking is in no valid state)',
  '0xC03A0024': ' (its tracking file contradicts itself)',
  '0xC03A0029': ' (it does not know the tracking id)',
  '0xC03A002A': ' (tracking is switched off)',
  '0xC03A0030': ' (its tracking information is missing)',
};

function whyLost(error: HypervRefused | HypervAnswerInvalid): string {
  if (!(error instanceof HypervRefused)) return '';
  return reasons[error.detail.hresult?.toUpperCase().replace('0X', '0x') ?? ''] ?? '';
}
