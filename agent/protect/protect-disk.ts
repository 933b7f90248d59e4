import { digestBytes } from '../../crypto/suite.ts';
import { allAtOnce } from '../../hypervisors/all-at-once.ts';
import type { BlockSource, Extent } from '../../hypervisors/hypervisor.ts';
import { type BlockMap, blockCountOf, type MapGeometry } from '../../replica/block-map.ts';
import { sameBytes, toHex } from '../../replica/encoding.ts';
import { digestOf, type LeafPlaces, placesOf, runsOf } from '../../replica/leaf.ts';
import { MapWriter } from '../../replica/map-writer.ts';
import type { SegmentId } from '../../replica/names.ts';
import { leafBlocks, parsePage, type Run } from '../../replica/page.ts';
import { type RecordAddress, recordType } from '../../replica/segment.ts';
import { SharedSlots } from '../../replica/shared-slots.ts';
import type { UnitCount } from '../../replica/unit-count.ts';
import type { MachineState } from '../state/machine-state.ts';
import type { BlockRange } from '../vigilance/lap.ts';
import type { DiskCompaction } from './compaction.ts';
import type { CompressionLevel } from './compression-level.ts';
import { NamedBlocks, requireSameEnd } from './end-check.ts';
import { inOrder } from './in-order.ts';
import type { PipelineWorkers } from './pipeline-workers.ts';
import type { SegmentPacker } from './segment-packer.ts';
import type { SharedKeys } from './shared-keys.ts';
import { SpotCheckMismatch } from './spot-check.ts';
import { outcome, type Squeezed, type SqueezedRecord, type SqueezeTask, type StretchFile, squeeze } from './squeeze.ts';
import { blockKind, inBatches, isToRead, type Stretch, stretchBytes, stretches, withMarks } from './stretch.ts';
import { zerosThatCount } from './zeros-that-count.ts';

/** changed extents → blocks → digest, compare → runs → compress → segments, and the disk's next map. */

const bytesReadAtOnceMax = 2 * 2 ** 20;

export interface DiskTools {
  readonly workers: PipelineWorkers;
  readonly keys: SharedKeys;
  readonly data: SegmentPacker;
  /** For pages that can't wait until the end. */
  readonly pages: SegmentPacker;
  readonly state: MachineState;
  readonly level: CompressionLevel;
  readonly stretchesAheadMax: number;
  readonly progress: DiskProgress;
  /** Blocks that were sent again because their newest copy is damaged. */
  readonly resent: { blocks: number };
  readonly changes: DiskChanges;
}

/** What differs from the newest point, whether this run sent it or an interrupted one had. */
export interface DiskChanges {
  changedBytes: number;
  /** As it is stored. */
  storedBytes: number;
  /** Stored of what did not change and was sent again by compaction. */
  compactedBytes: number;
}

/** Counters that the caller may watch while the run goes on. */
export interface DiskProgress {
  readBytes: number;
  changedBytes: number;
  skippedBytes: number;
  /** Read by spot checks, and found as the newest point has it. */
  checkedBytes: number;
  /** Of blocks that did not change, and were sent again by compaction. */
  compactedBytes: number;
}

export interface DiskPlan {
  readonly source: BlockSource;
  readonly geometry: MapGeometry;
  readonly generation: number;
  readonly old: BlockMap;
  /** Full listing: every leaf is looked at, and what the source does not list is cleared. */
  readonly full: boolean;
  /** Blocks and pages in these segments are stored again, though nothing changed. True for none unless the listing is full. */
  readonly isDamaged: (id: SegmentId) => boolean;
  /** So is what is met of these. */
  readonly isSparse: (id: SegmentId) => boolean;
  readonly extents: AsyncIterable<Extent>;
  /** Blocks that are read and compared even where nothing wrote to them, says tracking. None where the listing is full. */
  readonly checks: readonly BlockRange[];
  /** Nothing where the listing is full: every block and page is met then. */
  readonly compaction: DiskCompaction;
}

/** Stretches on their way through a worker, each in a part of the slot that is its own. */
interface Batch {
  readonly worked: readonly Worked[];
  /** Holds the bodies of the records; to be given back. */
  readonly slot: Uint8Array;
}

interface Worked extends Known {
  readonly stretch: Stretch;
  readonly squeezed: Squeezed;
}

/** What is known of the blocks of a stretch's leaf. */
interface Known {
  readonly before: Readonly<LeafPlaces>;
  readonly journaled: Readonly<LeafPlaces>;
}

/** Reads, squeezes and packs the disk's data. The map's last pages are placed by `MapWriter.finish`, after all disks. */
export async function protectDisk(
  plan: DiskPlan,
  tools: DiskTools,
  units: UnitCount,
  signal: AbortSignal,
): Promise<MapWriter> {
  const writer = await MapWriter.start(plan.geometry, plan.old, units, tools.pages, signal, {
    isDamaged: (id) => plan.isDamaged(id) || plan.isSparse(id),
  });
  const { blockSize } = plan.geometry;
  const cutting = { blockSize, blockCount: blockCountOf(plan.geometry), full: plan.full };
  const named = plan.full || plan.source.changesOnly ? null : new NamedBlocks(plan.geometry);
  const extents = plan.full ? plan.extents : zerosThatCount(plan.extents, plan.old, signal);
  const listed = stretches(extents, cutting);
  const { touch, resend } = plan.compaction;
  const checked = withMarks(named?.noting(listed) ?? listed, plan.checks, blockKind.verify, cutting);
  const touched = withMarks(checked, touch, blockKind.verify, cutting);
  const wanted = withMarks(touched, resend, blockKind.resend, cutting);
  const slots = new SharedSlots(Math.max(stretchBytes, blockSize));
  const bench = { ...tools, slots, journaled: journalOf(plan, tools.state) };
  const batches = inOrder(inBatches(interesting(plan, wanted, signal), cutting), tools.stretchesAheadMax, (stretches) =>
    workOn(stretches, plan, bench, signal),
  );
  const open: OpenLeaf[] = [];
  for await (const { worked, slot } of batches) {
    for (const result of worked) {
      const index = Math.floor(result.stretch.firstBlock / leafBlocks);
      for (const done of open[0]?.index === index ? [] : open.splice(0)) await closeLeaf(writer, done, signal);
      const leaf = open[0] ?? { index, places: keepInside(result.before, index, plan.geometry) };
      open[0] = leaf;
      await placeStretch(result, leaf, plan, tools, signal);
    }
    slots.give(slot);
  }
  for (const done of open) await closeLeaf(writer, done, signal);
  if (named !== null) await requireSameEnd(plan, named, tools.keys.digestKey, signal);
  await writer.clearBeyondCapacity(signal);
  return writer;
}

/** What the leaf holds now, without the blocks that a smaller disk no longer has. */
function keepInside(places: Readonly<LeafPlaces>, leafIndex: number, geometry: MapGeometry): LeafPlaces {
  const end = blockCountOf(geometry) - leafIndex * leafBlocks;
  return places.map((place, i) => (i < end ? place : null));
}

interface OpenLeaf {
  readonly index: number;
  readonly places: LeafPlaces;
}

async function closeLeaf(writer: MapWriter, leaf: OpenLeaf, signal: AbortSignal): Promise<void> {
  await writer.replaceLeaf(leaf.index, runsOf(leaf.places, leaf.index * leafBlocks), signal);
}

/** Leaves out stretches that read as zero and are not in the map either: free space costs nothing. */
async function* interesting(
  plan: DiskPlan,
  wanted: AsyncIterable<Stretch>,
  signal: AbortSignal,
): AsyncGenerator<Stretch> {
  for await (const stretch of wanted) {
    signal.throwIfAborted();
    const allZero = stretch.kinds.every((kind) => kind === blockKind.zero);
    if (allZero && (await plan.old.leafRuns(Math.floor(stretch.firstBlock / leafBlocks), signal)).length === 0)
      continue;
    yield stretch;
  }
}

interface WorkTools extends DiskTools {
  readonly slots: SharedSlots;
  readonly journaled: (leafIndex: number) => Readonly<LeafPlaces>;
}

async function workOn(
  stretches: readonly Stretch[],
  plan: DiskPlan,
  tools: WorkTools,
  signal: AbortSignal,
): Promise<Batch> {
  // One that meets an error is not given back: the run ends with it.
  const slot = tools.slots.take();
  const prepared: Prepared[] = [];
  let end = 0;
  for (const stretch of stretches) {
    const bytes = slot.subarray(end, end + stretch.kinds.length * plan.geometry.blockSize);
    prepared.push(await prepare(stretch, bytes, plan, tools, signal));
    end += bytes.length;
  }
  const worked = await squeezeAll(prepared, plan, tools, signal);
  for (const each of worked) requireMatch(each, plan);
  return { worked, slot };
}

interface Prepared extends Known {
  readonly stretch: Stretch;
  readonly task: StretchTask;
}

async function prepare(
  stretch: Stretch,
  bytes: Uint8Array,
  plan: DiskPlan,
  tools: WorkTools,
  signal: AbortSignal,
): Promise<Prepared> {
  const leafIndex = Math.floor(stretch.firstBlock / leafBlocks);
  const leafFirst = leafIndex * leafBlocks;
  const before = placesOf(await plan.old.leafRuns(leafIndex, signal), leafFirst);
  const journaled = tools.journaled(leafIndex);
  const known = digestsOf(before, stretch, leafFirst, (id, kind) => mustGo(plan, id, kind));
  const candidates = digestsOf(journaled, stretch, leafFirst, plan.isDamaged);
  const task = {
    bytes,
    blockSize: plan.geometry.blockSize,
    kinds: stretch.kinds,
    knownDigests: known.digests,
    known: known.present,
    journaledDigests: candidates.digests,
    journaled: candidates.present,
    digestKey: tools.keys.digestKey,
    compressionLevel: tools.level.current,
  };
  return { stretch, task, before, journaled };
}

function requireMatch({ stretch, squeezed }: Worked, plan: DiskPlan): void {
  const mismatch = squeezed.outcomes.indexOf(outcome.mismatch);
  if (mismatch >= 0) throw mismatchAt(stretch.firstBlock + mismatch, plan);
}

function mismatchAt(block: number, { source, geometry }: DiskPlan): SpotCheckMismatch {
  return new SpotCheckMismatch(
    `spot check: block ${block} of disk ${source.label} (at byte ${block * geometry.blockSize}) is not what the newest point has, ` +
      'but changed block tracking did not say that it was written',
  );
}

/** A block that was written is sent anew if its old place is sparse; what has to match its old content is compared with it. */
function mustGo({ isDamaged, isSparse }: DiskPlan, id: SegmentId, kind: number | undefined): boolean {
  const isCompared = kind === blockKind.resend || kind === blockKind.verify;
  return isDamaged(id) || (!isCompared && isSparse(id));
}

/** What an interrupted run has sent of a leaf. That this one sends is of no use to it. */
function journalOf(plan: DiskPlan, state: MachineState): WorkTools['journaled'] {
  const nothing: Readonly<LeafPlaces> = [];
  const isEmpty = !state.hasJournalOf(toHex(plan.geometry.diskId), plan.generation);
  return (leafIndex) => (isEmpty ? nothing : journaledPlaces(plan, state, leafIndex));
}

function journaledPlaces(plan: DiskPlan, state: MachineState, leafIndex: number): Readonly<LeafPlaces> {
  const first = leafIndex * leafBlocks;
  const merged: LeafPlaces = new Array(leafBlocks).fill(null);
  for (const bytes of state.journalLeaves(toHex(plan.geometry.diskId), plan.generation, leafIndex)) {
    const page = parsePage(bytes, 0, first, 'run journal');
    if (!('runs' in page)) continue;
    for (const run of page.runs) merged.fill(run, run.first - first, run.first + run.count - first);
  }
  return merged;
}

type StretchTask = Omit<SqueezeTask, 'file'>;

/** By a worker at once: what it reads by itself, and what the source fills in for it. */
async function squeezeAll(
  prepared: readonly Prepared[],
  plan: DiskPlan,
  { workers, progress }: DiskTools,
  signal: AbortSignal,
): Promise<readonly Worked[]> {
  // At most 16 stretches: one after the other, each would wait for its answer alone.
  const tasks: readonly SqueezeTask[] = await allAtOnce(
    prepared.map(async ({ stretch, task }) => {
      const file = await locate(stretch, task, plan, signal);
      if (file === null) await readBlocks(stretch, plan, task.bytes, signal);
      return { ...task, file };
    }),
  );
  const isTrifling = prepared.every(({ stretch }, i) => tasks[i]?.file === null && isTrifle(stretch, plan));
  const squeezed = isTrifling ? tasks.map(squeeze) : await workers.squeeze(tasks, signal);
  const worked: Worked[] = [];
  for (const [i, { stretch, task, before, journaled }] of prepared.entries()) {
    const own = squeezed[i] ?? (await squeezeAgain(stretch, task, plan, workers, signal));
    worked.push({ stretch, squeezed: own, before, journaled });
    progress.readBytes += bytesToRead(stretch, plan.geometry);
    const file = squeezed[i] === null ? null : tasks[i]?.file;
    if (file !== null && file !== undefined) plan.source.direct?.noteRead(file.offset, file.length);
  }
  return worked;
}

/** Where a worker can read the stretch by itself. Null where the source lets nobody do that. */
async function locate(
  { firstBlock }: Stretch,
  { bytes }: StretchTask,
  { source: { direct }, geometry }: DiskPlan,
  signal: AbortSignal,
): Promise<StretchFile | null> {
  if (direct === null) return null;
  const offset = firstBlock * geometry.blockSize;
  const length = Math.min(bytes.length, geometry.capacityBytes - offset);
  const pieces = await direct.locate(offset, length, signal);
  return pieces === null ? null : { pieces, offset, length };
}

/** A worker could not read the file: the source tries, and knows how to say what is wrong. */
async function squeezeAgain(
  stretch: Stretch,
  task: StretchTask,
  plan: DiskPlan,
  workers: PipelineWorkers,
  signal: AbortSignal,
): Promise<Squeezed> {
  await readBlocks(stretch, plan, task.bytes, signal);
  const [squeezed] = await workers.squeeze([{ ...task, file: null }], signal);
  if (squeezed === undefined || squeezed === null) throw new Error('a worker could not read what it was given');
  return squeezed;
}

/** A sync that checks a few blocks, and nothing else, is over before a thread has started: milliseconds of digests are not worth one. */
function isTrifle({ kinds }: Stretch, { checks, geometry }: DiskPlan): boolean {
  const blocks = checks.reduce((sum, { first, end }) => sum + end - first, 0);
  const isSmall = blocks > 0 && blocks * geometry.blockSize <= stretchBytes;
  return isSmall && kinds.every((kind) => kind !== blockKind.read && kind !== blockKind.resend);
}

function bytesToRead({ firstBlock, kinds }: Stretch, { blockSize, capacityBytes }: MapGeometry): number {
  const blocks = kinds.reduce((sum, kind) => sum + (isToRead(kind) ? 1 : 0), 0);
  const last = kinds.length - 1;
  const cutOff = Math.max(0, (firstBlock + kinds.length) * blockSize - capacityBytes);
  return blocks * blockSize - (isToRead(kinds[last]) ? cutOff : 0);
}

/** Fills the stretch's bytes. What is not to be read is left as it was. */
async function readBlocks(stretch: Stretch, plan: DiskPlan, bytes: Uint8Array, signal: AbortSignal): Promise<void> {
  const { blockSize, capacityBytes } = plan.geometry;
  const start = stretch.firstBlock * blockSize;
  const pieceBlocks = Math.max(1, bytesReadAtOnceMax / blockSize);
  for (let first = 0; first < stretch.kinds.length; ) {
    let count = 0;
    while (count < pieceBlocks && isToRead(stretch.kinds[first + count])) count++;
    if (count > 0) {
      const from = first * blockSize;
      const to = Math.min((first + count) * blockSize, capacityBytes - start);
      await plan.source.read(start + from, bytes.subarray(from, to), signal);
      bytes.fill(0, to, (first + count) * blockSize);
    }
    first += Math.max(1, count);
  }
}

/** What is not to be used counts as not there. */
function digestsOf(
  places: Readonly<LeafPlaces>,
  stretch: Stretch,
  leafFirst: number,
  isUnusable: (id: SegmentId, kind: number | undefined) => boolean,
): { digests: Uint8Array; present: Uint8Array } {
  const digests = new Uint8Array(stretch.kinds.length * digestBytes);
  const present = new Uint8Array(stretch.kinds.length);
  present.forEach((_, i) => {
    const block = stretch.firstBlock + i;
    const place = places[block - leafFirst] ?? null;
    if (place === null || isUnusable(place.at, stretch.kinds[i])) return;
    digests.set(digestOf(place, block), i * digestBytes);
    present[i] = 1;
  });
  return { digests, present };
}

/** Packs the new records and notes where each block of the stretch lies from now on. */
async function placeStretch(
  result: Worked,
  leaf: OpenLeaf,
  plan: DiskPlan,
  tools: DiskTools,
  signal: AbortSignal,
): Promise<void> {
  const { stretch, squeezed } = result;
  const inLeaf = stretch.firstBlock - leaf.index * leafBlocks;
  squeezed.outcomes.forEach((what, i) => {
    if (what === outcome.zero) leaf.places[inLeaf + i] = null;
    if (what === outcome.journaled) leaf.places[inLeaf + i] = result.journaled[inLeaf + i] ?? null;
    if (what === outcome.unchanged || what === outcome.journaled)
      tools.progress.skippedBytes += plan.geometry.blockSize;
    if (what === outcome.verified) tools.progress.checkedBytes += plan.geometry.blockSize;
    if (what === outcome.journaled) countJournaled(result.journaled[inLeaf + i] ?? null, plan, tools.changes);
    const before = result.before[inLeaf + i] ?? null;
    const sent = what === outcome.changed || what === outcome.journaled;
    if (sent && before !== null && plan.isDamaged(before.at)) tools.resent.blocks++;
  });
  for (const record of squeezed.records) {
    const at = await packRecord(record, result, plan, tools, signal);
    countRecord(record, result, plan, tools);
    const first = stretch.firstBlock + record.first;
    const digests = digestsOfRecord(record, squeezed);
    const { codec, count } = record;
    const run: Run = { first, count, at, codec, inside: 0, recordBlocks: count, digests };
    leaf.places.fill(run, inLeaf + record.first, inLeaf + record.first + count);
  }
}

/** A record may hold both: blocks that changed, and blocks that leave a sparse segment behind. */
function countRecord(
  record: SqueezedRecord,
  { stretch, squeezed, before }: Worked,
  { geometry: { blockSize }, isSparse }: DiskPlan,
  { progress, changes }: DiskTools,
): void {
  const { first, count, body } = record;
  const digests = digestsOfRecord(record, squeezed);
  let moved = 0;
  for (let i = 0; i < count; i++) {
    const block = stretch.firstBlock + first + i;
    const old = before[block % leafBlocks] ?? null;
    const digest = digests.subarray(i * digestBytes, (i + 1) * digestBytes);
    if (old !== null && isSparse(old.at) && sameBytes(digestOf(old, block), digest)) moved++;
  }
  progress.changedBytes += (count - moved) * blockSize;
  progress.compactedBytes += moved * blockSize;
  changes.changedBytes += (count - moved) * blockSize;
  changes.storedBytes += (body.length * (count - moved)) / count;
  changes.compactedBytes += (body.length * moved) / count;
}

/** What an interrupted run had sent of a record is its share of that. */
function countJournaled(place: Run | null, { geometry }: DiskPlan, changes: DiskChanges): void {
  changes.changedBytes += geometry.blockSize;
  changes.storedBytes += place === null ? 0 : place.at.length / place.recordBlocks;
}

async function packRecord(
  record: SqueezedRecord,
  result: Worked,
  plan: DiskPlan,
  tools: DiskTools,
  signal: AbortSignal,
): Promise<RecordAddress> {
  const { diskId, blockSize } = plan.geometry;
  await tools.data.room(record.body.length, signal);
  return tools.data.add({
    type: recordType.data,
    codec: record.codec,
    diskId,
    firstBlock: result.stretch.firstBlock + record.first,
    blockCount: record.count,
    blockSize,
    plaintextLength: record.count * blockSize,
    body: record.body,
    digests: digestsOfRecord(record, result.squeezed),
    childDigests: [],
  });
}

function digestsOfRecord({ first, count }: SqueezedRecord, { digests }: Squeezed): Uint8Array {
  return digests.subarray(first * digestBytes, (first + count) * digestBytes);
}
