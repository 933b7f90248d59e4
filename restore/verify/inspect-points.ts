import { createHash } from 'node:crypto';
import { BlockMap, type WalkGuide } from '../../replica/block-map.ts';
import { isDamage } from '../../replica/damage.ts';
import { sameBytes } from '../../replica/encoding.ts';
import type { AttachmentState, DiskState, Manifest } from '../../replica/manifest.ts';
import { chainEntryName, segmentKey } from '../../replica/names.ts';
import type { CoalescedRange } from '../../replica/segment-reader.ts';
import { fetchRange, type PlannedRecord, RecordPlan, rangeBytesMax } from '../fetch-range.ts';
import type { OpenReplica } from '../open-point.ts';
import { ContentMismatch, errorOf, wholeRun } from '../open-range.ts';
import { readAttachmentChunk } from '../restore-attachments.ts';
import type { RestoreTools } from '../restore-disk.ts';
import type { CheckedKeys } from './checked-keys.ts';
import type { DamageRegister } from './damage-register.ts';
import type { VerifyCounts } from './finding.ts';
import { inLanes } from './in-lanes.ts';
import { type RecordId, RecordSet } from './record-set.ts';

/**
 * Everything that points are made of, opened: manifests, pages, blocks, attachments. What many points share is opened once, for the
 * oldest of them: it uses at least as much of each record as those after it.
 */

const windowBytes = 64 * 2 ** 20;

export interface PointsCheck {
  readonly replica: OpenReplica;
  /** Ascending. */
  readonly points: readonly number[];
  readonly tools: Pick<RestoreTools, 'reader' | 'workers' | 'rangesInFlightMax'> & { readonly keys: CheckedKeys };
  readonly register: DamageRegister;
  readonly counts: VerifyCounts;
}

export async function inspectPoints(check: PointsCheck, signal: AbortSignal): Promise<void> {
  const seen = new RecordSet();
  for (const point of check.points) {
    const manifest = await openManifestOf(check, point, signal);
    if (manifest === null) continue;
    for (const disk of manifest.disks) await checkDisk(disk, seen, check, signal);
    for (const attachment of manifest.attachments) await checkAttachment(attachment, seen, check, signal);
  }
}

/** Null, and a finding, where the point can't even be opened. */
export async function openManifestOf(
  { replica, register, tools }: PointsCheck,
  point: number,
  signal: AbortSignal,
): Promise<Manifest | null> {
  try {
    return (await replica.openPoint(point, signal, tools.keys)).manifest;
  } catch (error) {
    const object = tools.keys.objectOf(error) ?? chainEntryName(replica.chain.machineId, point);
    register.note(object, error, [point]);
    return null;
  }
}

async function checkDisk(disk: DiskState, seen: RecordSet, check: PointsCheck, signal: AbortSignal): Promise<void> {
  const map = new BlockMap(disk, disk.root, check.tools.reader);
  const guide: WalkGuide = {
    enter: (ref) => seen.add(ref),
    unreadable: (ref, _level, error) => check.register.notePage(ref, objectOf(check, ref, error), error),
  };
  let plan = new RecordPlan();
  let planned = 0;
  for await (const { page } of map.pages(signal, guide)) {
    check.counts.pages++;
    if (!('runs' in page)) continue;
    // All runs of a record lie in one leaf, so a window that ends with a leaf never sees half of one.
    const fresh = new Set<string>();
    for (const run of page.runs) {
      const key = `${segmentKey(run.at)} ${run.at.record}`;
      if (seen.add(run.at)) fresh.add(key);
      if (!fresh.has(key)) continue;
      plan.add(run, [wholeRun(run)]);
      planned += run.at.length;
    }
    if (planned < windowBytes) continue;
    await checkWindow(disk, plan, check, signal);
    plan = new RecordPlan();
    planned = 0;
  }
  await checkWindow(disk, plan, check, signal);
}

async function checkWindow(disk: DiskState, plan: RecordPlan, check: PointsCheck, signal: AbortSignal): Promise<void> {
  const ranges = plan.ranges(rangeBytesMax);
  await inLanes(ranges, check.tools.rangesInFlightMax, (range) => checkRange(disk, range, check, signal));
}

async function checkRange(
  disk: DiskState,
  range: CoalescedRange<PlannedRecord>,
  check: PointsCheck,
  signal: AbortSignal,
): Promise<void> {
  const { tools, counts } = check;
  try {
    const { keys, task } = await fetchRange(disk, range, tools, signal);
    for (const failure of await tools.workers.check(keys, task, signal))
      failRecord(check, { ...range.id, record: failure.record }, errorOf(failure));
    counts.records += range.members.length;
    for (const { pieces } of range.members) for (const { count } of pieces) counts.blocks += count;
  } catch (error) {
    if (isCutShort(error) && range.members.length > 1) {
      for (const member of range.members) await checkRange(disk, alone(range, member), check, signal);
    } else for (const member of range.members) failRecord(check, member, error);
  }
}

/** The object ends before the range does: some of its records may still be there. */
function isCutShort(error: unknown): boolean {
  return isDamage(error) && error.code === 'RANGE_INVALID';
}

function alone(range: CoalescedRange<PlannedRecord>, member: PlannedRecord): CoalescedRange<PlannedRecord> {
  return { id: range.id, offset: member.offset, length: member.length, members: [member] };
}

/** Chunk by chunk, so that an attachment of any length needs little memory. */
async function checkAttachment(
  attachment: AttachmentState,
  seen: RecordSet,
  check: PointsCheck,
  signal: AbortSignal,
): Promise<void> {
  const fresh = attachment.chunks.filter(({ at }) => seen.add(at));
  if (fresh.length === 0 && attachment.chunks.length > 0) return;
  check.counts.attachments++;
  const hash = createHash('sha256');
  let whole = true;
  for (const [index, { at }] of attachment.chunks.entries()) {
    try {
      hash.update(await readAttachmentChunk(attachment, index, check.tools.reader, signal));
      check.counts.records++;
    } catch (error) {
      failRecord(check, at, error);
      whole = false;
    }
  }
  if (!whole || sameBytes(hash.digest(), attachment.sha256)) return;
  const error = new ContentMismatch(`attachment ${attachment.name}: its content is not what the recovery point names`);
  for (const { at } of attachment.chunks) failRecord(check, at, error);
}

function failRecord(check: PointsCheck, at: RecordId, error: unknown): void {
  check.register.noteRecord(at, objectOf(check, at, error), error);
}

/** The object that an error is about: the record's segment, or the key record without which it can't be opened. */
export function objectOf({ tools }: PointsCheck, at: RecordId, error: unknown): string {
  return tools.keys.objectOf(error) ?? tools.reader.nameOf(at);
}
