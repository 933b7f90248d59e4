import type { MapGeometry } from '../replica/block-map.ts';
import type { EpochKeys } from '../replica/key-ring.ts';
import { segmentKey } from '../replica/names.ts';
import type { Run } from '../replica/page.ts';
import { type RecordAddress, segmentPreambleBytes } from '../replica/segment.ts';
import { type CoalescedRange, coalesce, type SegmentReader } from '../replica/segment-reader.ts';
import type { OpenRangeTask, WantedPiece } from './open-range.ts';
import type { RestoreWorkers } from './restore-workers.ts';

/** plan → ranged gets: from the runs of a map to ranges of segments, with all that a worker needs to open them. */

const gapBytesMax = 512 * 1024;
/** Longest range that is asked for at once: a whole segment of the usual size. */
export const rangeBytesMax = 9 * 2 ** 20;
/** Of a range, whatever its compression: the largest record of a disk fits several times. */
export const rangePlaintextMax = 8 * 2 ** 20;

/** A record with those of its blocks that are wanted. */
export interface PlannedRecord extends RecordAddress {
  readonly run: Run;
  readonly pieces: readonly WantedPiece[];
}

/** Collects the runs of one window: those of one record are opened together. */
export class RecordPlan {
  readonly #records = new Map<string, PlannedRecord & { readonly pieces: WantedPiece[] }>();

  add(run: Run, pieces: readonly WantedPiece[]): void {
    if (pieces.length === 0) return;
    const key = `${segmentKey(run.at)} ${run.at.record}`;
    const planned = this.#records.get(key) ?? { ...run.at, run, pieces: [] };
    planned.pieces.push(...pieces);
    this.#records.set(key, planned);
  }

  get records(): readonly PlannedRecord[] {
    return [...this.#records.values()];
  }

  /** Each at most `bytesMax` long, unless one record is longer. */
  ranges(bytesMax: number): readonly CoalescedRange<PlannedRecord>[] {
    return coalesce(this.records, gapBytesMax, bytesMax);
  }

  /** And with at most `rangePlaintextMax` of wanted blocks: for whoever keeps all of a range opened. */
  rangesToKeep(bytesMax: number, blockSize: number): readonly CoalescedRange<PlannedRecord>[] {
    return this.ranges(bytesMax).flatMap((range) => [...splitByPlaintext(range, blockSize)]);
  }
}

/** Into parts with at most `rangePlaintextMax` of wanted blocks. */
export function* splitByPlaintext<Planned extends PlannedRecord>(
  { id, members }: CoalescedRange<Planned>,
  blockSize: number,
): Generator<CoalescedRange<Planned>> {
  let part: Planned[] = [];
  let plaintextBytes = 0;
  for (const member of members) {
    const bytes = member.pieces.reduce((sum, { count }) => sum + count, 0) * blockSize;
    if (part.length > 0 && plaintextBytes + bytes > rangePlaintextMax) {
      yield rangeOf(id, part);
      part = [];
      plaintextBytes = 0;
    }
    part.push(member);
    plaintextBytes += bytes;
  }
  if (part.length > 0) yield rangeOf(id, part);
}

/** Members ascend. */
function rangeOf<Planned extends PlannedRecord>(
  id: CoalescedRange<Planned>['id'],
  members: readonly Planned[],
): CoalescedRange<Planned> {
  const offset = members[0]?.offset ?? 0;
  const last = members.at(-1);
  return { id, offset, length: last === undefined ? 0 : last.offset + last.length - offset, members };
}

export interface FetchedRange {
  readonly keys: EpochKeys;
  readonly task: Omit<OpenRangeTask, 'dataKey' | 'digestKey' | 'into'>;
}

/** Fetches a range into a buffer of the workers', and unwraps the key of its segment if that was not done before. */
export async function fetchRange(
  disk: MapGeometry,
  range: CoalescedRange<PlannedRecord>,
  { reader, workers }: { readonly reader: SegmentReader; readonly workers: RestoreWorkers },
  signal: AbortSignal,
): Promise<FetchedRange> {
  const object = reader.nameOf(range.id);
  // A range that begins where the preamble ends brings it along.
  const start = range.offset <= segmentPreambleBytes && !reader.knowsPreamble(range.id) ? 0 : range.offset;
  const length = range.offset + range.length - start;
  const [read, described] = await Promise.allSettled([
    reader.readRange(range.id, start, length, signal, workers.rangeBuffer(length)),
    describeSegment(reader, range.id, signal),
  ]);
  if (read.status === 'rejected') throw read.reason;
  const bytes = read.value;
  if (described.status === 'rejected') {
    workers.giveBack(bytes);
    throw described.reason;
  }
  const { preamble, epoch } = described.value;
  const records = range.members.map(({ run, pieces, ...at }) => ({
    record: at.record,
    offset: at.offset - start,
    length: at.length,
    codec: run.codec,
    recordFirstBlock: run.first - run.inside,
    recordBlocks: run.recordBlocks,
    pieces,
  }));
  const header = { ...range.id, context: epoch.context };
  const { diskId, blockSize } = disk;
  return { keys: epoch, task: { header, preamble, object, diskId, blockSize, bytes, records } };
}

async function describeSegment(
  reader: SegmentReader,
  id: CoalescedRange<PlannedRecord>['id'],
  signal: AbortSignal,
): Promise<{ readonly preamble: Uint8Array; readonly epoch: EpochKeys }> {
  return { preamble: await reader.preamble(id, signal), epoch: await reader.keysOf(id, signal) };
}
