import { ChangeTrackingLost } from '../errors.ts';
import type { BlockSource, Extent } from '../hypervisor.ts';
import { changedAreas } from './changed-areas.ts';
import type { VsphereDisk } from './machine-disks.ts';
import type { HeldReader } from './open-readers.ts';
import { changeIdSince, encodeReferencePoint, type VsphereReferencePoint } from './reference-point.ts';
import type { Reference } from './vim25/soap-xml.ts';
import { isFault, VsphereAnswerInvalid } from './vsphere-errors.ts';
import type { VsphereSite } from './vsphere-site.ts';

/** A disk of a snapshot: vSphere says what changed, and the reader has the bytes. */

export interface FrozenDisk {
  readonly site: VsphereSite;
  readonly snapshot: Reference;
  readonly disk: VsphereDisk;
  /** Null where its changes are not tracked. */
  readonly point: VsphereReferencePoint | null;
  /** Whether vSphere's own list of what was ever written is used: VDDK has a better one. */
  readonly listsWritten: boolean;
  /** Opens the disk where it is not open. */
  readonly reader: (signal: AbortSignal) => Promise<HeldReader>;
}

const whatEverWasWritten = '*';
/** By which vSphere says that it can't tell: https://developer.broadcom.com/xapis/vsphere-web-services-api/latest/ */
const untellable = [
  'FileFault',
  'FileNotFound',
  'CannotAccessFile',
  'InvalidArgument',
  'NotFound',
  'NotSupported',
  'InvalidState',
  'SystemError',
];

export function vsphereBlockSource(frozen: FrozenDisk): BlockSource {
  const { disk, point, reader } = frozen;
  return {
    label: disk.label,
    capacityBytes: disk.capacityBytes,
    referencePoint: point === null ? null : encodeReferencePoint(point),
    changedExtents: (since, signal) =>
      since === null ? allExtents(frozen, signal) : extentsSince(frozen, since, signal),
    async read(offset, into, signal) {
      signal.throwIfAborted();
      using held = await reader(signal);
      await held.reader.read(offset, into, signal);
    },
    direct: null,
    changesOnly: false,
  };
}

async function* extentsSince(frozen: FrozenDisk, since: Uint8Array, signal: AbortSignal): AsyncGenerator<Extent> {
  const { label } = frozen.disk;
  const changeId = changeIdSince(label, since, frozen.point);
  try {
    for await (const { offset, length } of areas(frozen, changeId, signal)) yield { offset, length, zero: false };
  } catch (error) {
    if (error instanceof VsphereAnswerInvalid)
      throw new ChangeTrackingLost(
        `disk ${label}: what vSphere says of its changes contradicts itself: ${error.message}`,
        { cause: error },
      );
    if (!isFault(error, ...untellable)) throw error;
    throw new ChangeTrackingLost(
      `disk ${label}: vSphere can't tell what changed since the last point (${error.detail.fault}: ${error.detail.words})`,
      { cause: error },
    );
  }
}

/** What was ever written; the rest reads as zero. Whoever can't tell calls it data. */
async function* allExtents(frozen: FrozenDisk, signal: AbortSignal): AsyncGenerator<Extent> {
  signal.throwIfAborted();
  const { disk, point, listsWritten } = frozen;
  let covered = 0;
  if (point !== null && listsWritten)
    try {
      for await (const { offset, length } of areas(frozen, whatEverWasWritten, signal)) {
        yield { offset, length, zero: false };
        covered = offset + length;
      }
      return;
    } catch (error) {
      if (!isFault(error, ...untellable) && !(error instanceof VsphereAnswerInvalid)) throw error;
    }
  if (covered === 0) {
    using held = await frozen.reader(signal);
    yield* held.reader.extents(signal);
  } else if (covered < disk.capacityBytes) yield { offset: covered, length: disk.capacityBytes - covered, zero: false };
}

function areas({ site, snapshot, disk }: FrozenDisk, changeId: string, signal: AbortSignal) {
  const { session, ref } = site;
  const { key, capacityBytes } = disk;
  return changedAreas(session, { machine: ref, snapshot, deviceKey: key, capacityBytes, changeId }, signal);
}
