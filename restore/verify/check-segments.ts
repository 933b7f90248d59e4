import { subtle } from 'node:crypto';
import type { SegmentLife } from '../../replica/control.ts';
import { ObjectAltered } from '../../replica/damage.ts';
import { sameBytes } from '../../replica/encoding.ts';
import { compareSegments, segmentName, segmentsPrefix } from '../../replica/names.ts';
import { ObjectNotFound } from '../../storage-targets/errors.ts';
import type { ListedObject, StorageTarget } from '../../storage-targets/storage-target.ts';
import type { DamageRegister } from './damage-register.ts';
import { inLanes } from './in-lanes.ts';

/** Segments as objects: there, of the right length, with the right checksum, with the right bytes. No key is needed. */

export interface SegmentsCheck {
  readonly target: StorageTarget;
  readonly machineId: Uint8Array;
  /** Segments that a point of this verify needs, ascending. */
  readonly needed: readonly SegmentLife[];
  /** The points that a segment's life covers. */
  readonly pointsOf: (life: SegmentLife) => readonly number[];
  readonly register: DamageRegister;
  readonly inFlightMax: number;
}

/** One walk over the listing. Returns the segments that are there and have their length. */
export async function checkPresent(check: SegmentsCheck, signal: AbortSignal): Promise<readonly SegmentLife[]> {
  const { target, machineId, needed } = check;
  const listed = target.list(segmentsPrefix(machineId), {}, signal)[Symbol.asyncIterator]();
  const present: SegmentLife[] = [];
  let found: IteratorResult<ListedObject> = await listed.next();
  try {
    for (const life of needed) {
      const name = segmentName(machineId, life);
      while (found.done !== true && found.value.name < name) found = await listed.next();
      const object = found.done !== true && found.value.name === name ? found.value : null;
      await guarded(check, life, async () => {
        checkLength(name, life, object);
        present.push(life);
      });
    }
  } finally {
    await listed.return?.();
  }
  return present;
}

function checkLength(name: string, life: SegmentLife, object: ListedObject | null): void {
  if (object === null) throw new ObjectNotFound(`${name} is missing: somebody removed it`);
  if (object.bytes !== life.size)
    throw new ObjectAltered(`${name} has ${object.bytes} bytes instead of ${life.size}: altered or replaced`);
}

/** What the store recorded at upload. Returns for how many segments it keeps nothing. */
export async function checkChecksums(check: SegmentsCheck, signal: AbortSignal): Promise<number> {
  let unprovable = 0;
  await inLanes(check.needed, check.inFlightMax, (life) =>
    guarded(check, life, async () => {
      const name = segmentName(check.machineId, life);
      const info = await check.target.head(name, signal);
      checkLength(name, life, info);
      if (info.sha256 === null) unprovable++;
      else if (!sameBytes(info.sha256, life.sha256))
        throw new ObjectAltered(`${name}: the store recorded the checksum of other bytes when it was put`);
    }),
  );
  return unprovable;
}

/** Fetches and hashes whole segments. Memory: `inFlightMax` segments. */
export async function checkCiphertext(check: SegmentsCheck, signal: AbortSignal): Promise<void> {
  const present = await checkPresent(check, signal);
  await inLanes(present, check.inFlightMax, (life) =>
    guarded(check, life, async () => {
      const name = segmentName(check.machineId, life);
      // The length was checked before: a range keeps a store from making us hold more.
      const bytes = await check.target.get(name, { offset: 0, length: life.size }, signal);
      const found = new Uint8Array(await subtle.digest('SHA-256', bytes as Uint8Array<ArrayBuffer>));
      if (!sameBytes(found, life.sha256))
        throw new ObjectAltered(`${name}: its bytes are not the ones that were published`);
    }),
  );
}

async function guarded(check: SegmentsCheck, life: SegmentLife, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    check.register.noteSegment(life, segmentName(check.machineId, life), error, check.pointsOf(life));
  }
}

/** Segments whose life covers one of the points; points ascending. */
export function neededBy(
  segments: Iterable<SegmentLife>,
  pointsOf: (life: SegmentLife) => readonly number[],
): readonly SegmentLife[] {
  return [...segments].filter((life) => pointsOf(life).length > 0).sort(compareSegments);
}
