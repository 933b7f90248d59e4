import { KeyRefused } from '../../crypto/errors.ts';
import { ChangeTrackingLost } from '../../hypervisors/errors.ts';
import type { BlockSource, Consistency, MachineSnapshot } from '../../hypervisors/hypervisor.ts';
import { BlockMap, type PageSource, type WalkGuide } from '../../replica/block-map.ts';
import { isDamage } from '../../replica/damage.ts';
import { sameBytes, toHex } from '../../replica/encoding.ts';
import type { EpochKeys } from '../../replica/key-ring.ts';
import type { AttachmentState, DiskState, Manifest } from '../../replica/manifest.ts';
import { dropSubtree, type MapWriter } from '../../replica/map-writer.ts';
import { compareSegments, type SegmentId, segmentKey } from '../../replica/names.ts';
import type { PageRef } from '../../replica/page.ts';
import type { RecordAddress } from '../../replica/segment.ts';
import type { Tenure } from '../../replica/tenure.ts';
import { UnitCount } from '../../replica/unit-count.ts';
import type { MachineState } from '../state/machine-state.ts';
import type { Credit } from '../vigilance/compaction-credit.ts';
import type { Lap } from '../vigilance/lap.ts';
import { protectAttachments } from './attachments.ts';
import {
  type Compaction,
  type CompactionLimits,
  type DiskCompaction,
  isChosen,
  nothingToCompact,
  planCompaction,
} from './compaction.ts';
import { type CompressionLevel, compressionLevel } from './compression-level.ts';
import { noDamage, type OldDamage, surveyDamage } from './old-damage.ts';
import type { PipelineWorkers } from './pipeline-workers.ts';
import { type DiskDecision, decideDisk, repairDecision, resendDecision, resyncDecision } from './plan-disks.ts';
import { type DiskChanges, type DiskProgress, protectDisk } from './protect-disk.ts';
import { type SealedPages, SegmentPacker } from './segment-packer.ts';
import { SegmentUploader } from './segment-uploader.ts';
import type { SharedKeys } from './shared-keys.ts';
import {
  afterWholeDisk,
  planSpotCheck,
  type SpotCheck,
  type SpotCheckLimits,
  SpotCheckMismatch,
} from './spot-check.ts';

/** All disks of one snapshot into durable segments and new maps; nothing is published yet. */

const stretchesAheadPerWorker = 2;

export interface RunProgress extends DiskProgress {
  /** Of all disks; known once the snapshot is there. */
  capacityBytes: number;
  uploadedBytes: number;
  /** What spot checks are to read; grows as disks are come to. */
  toCheckBytes: number;
}

export function noProgress(): RunProgress {
  const read = { readBytes: 0, changedBytes: 0, skippedBytes: 0, checkedBytes: 0, compactedBytes: 0 };
  return { ...read, capacityBytes: 0, uploadedBytes: 0, toCheckBytes: 0 };
}

export interface ReplicateTools {
  readonly tenure: Tenure;
  readonly keys: EpochKeys;
  readonly shared: SharedKeys;
  readonly workers: PipelineWorkers;
  readonly state: MachineState;
  readonly pages: PageSource;
  /** Why nothing of the newest point can be used, however good its maps are; null: it can. */
  readonly lost: string | null;
  readonly options: {
    readonly resync: boolean;
    readonly wholeBecause: string | null;
    readonly access: 'full' | 'write-only';
    readonly blocksMax?: number;
    readonly segmentBytes: number;
    readonly compression: number | 'auto';
    readonly workers: number;
    readonly segmentsInFlightMax: number;
    readonly spotCheck: SpotCheckLimits;
    readonly compaction: CompactionLimits;
  };
  readonly progress: RunProgress;
  /** What is known of the machine's disks, by id as hex. */
  readonly laps: ReadonlyMap<string, Lap>;
  /** Called at once when a spot check finds that tracking is wrong: the run may fail yet. */
  readonly onMismatch: (disk: Lap, what: string) => void;
}

export interface ReplicatedSnapshot {
  readonly disks: readonly DiskState[];
  readonly attachments: readonly AttachmentState[];
  readonly consistency: Consistency;
  readonly units: UnitCount;
  readonly uploadedBytes: number;
  readonly repaired: RepairedSnapshot | null;
  /** What is known of each tracked disk once the point is published. */
  readonly laps: readonly Lap[];
  /** Of each disk. */
  readonly found: readonly FoundChanges[];
  /** Segments of which nothing is used any more, because what was alive of them was sent again. */
  readonly compactedSegments: number;
  readonly credit: Credit;
}

export interface FoundChanges extends DiskChanges {
  readonly mode: DiskDecision['mode'];
  readonly capacityBytes: number;
}

/** What was damaged of the newest point, and was stored again. */
export interface RepairedSnapshot {
  /** None of them is used any more. */
  readonly segments: readonly SegmentId[];
  readonly resentBlocks: number;
  readonly resentAttachments: readonly string[];
  /** Labels of disks that were sent as a whole, because their map could not be read. */
  readonly resentDisks: readonly string[];
}

interface DiskResult {
  readonly decision: DiskDecision;
  readonly writer: MapWriter;
  readonly units: UnitCount;
  readonly sentBlocks: number;
  readonly lap: Lap | null;
  readonly changes: DiskChanges;
}

/** `previous` is what the newest point says; null where there is none, or where this host may not open it. */
export async function replicateSnapshot(
  snapshot: MachineSnapshot,
  previous: Manifest | null,
  tools: ReplicateTools,
  signal: AbortSignal,
): Promise<ReplicatedSnapshot> {
  const lost = tools.lost ?? (previous === null && tools.tenure.state.newestPoint !== null ? mapLacking : null);
  const known = new Map(tools.state.damagedSegments.map((id) => [segmentKey(id), id]));
  const damage = { ...noDamage, segments: known };
  if (previous === null || lost !== null)
    return await replicateAgainst({ previous, lost, damage }, snapshot, tools, signal);
  try {
    return await replicateOrRepair(previous, snapshot, tools, signal);
  } catch (error) {
    if (!(error instanceof KeyRefused) || tools.options.access !== 'write-only') throw error;
    // A page of the newest maps is missing here, and this host may not open it in the bucket.
    return await replicateAgainst({ previous, lost: mapLacking, damage }, snapshot, tools, signal);
  }
}

const mapLacking = "this host lacks the newest point's map and may not unwrap keys";

/** Damage is known from a verify, or met here where a page of the newest maps can't be read. */
async function replicateOrRepair(
  previous: Manifest,
  snapshot: MachineSnapshot,
  tools: ReplicateTools,
  signal: AbortSignal,
): Promise<ReplicatedSnapshot> {
  const known = tools.state.damagedSegments;
  if (known.length === 0) {
    try {
      return await replicateAgainst({ previous, lost: null, damage: noDamage }, snapshot, tools, signal);
    } catch (error) {
      if (!isDamage(error)) throw error;
      tools.state.dropStaged();
    }
  }
  const damage = await surveyDamage(previous, known, tools.pages, signal);
  return await replicateAgainst({ previous, lost: null, damage }, snapshot, tools, signal);
}

interface Baseline {
  readonly previous: Manifest | null;
  /** Why nothing of the newest point can be kept: all that it used dies. */
  readonly lost: string | null;
  readonly damage: OldDamage;
}

async function replicateAgainst(
  baseline: Baseline,
  snapshot: MachineSnapshot,
  tools: ReplicateTools,
  signal: AbortSignal,
): Promise<ReplicatedSnapshot> {
  const { previous, lost, damage } = baseline;
  const isDamaged = (id: SegmentId): boolean => damage.segments.has(segmentKey(id));
  const nowMs = snapshot.takenAt.getTime();
  const compaction = await planFor(baseline, nowMs, tools, signal);
  const isSparse = (id: SegmentId): boolean => isChosen(compaction, id);
  const resent = { blocks: 0 };
  const level = compressionLevel(tools.options.compression);
  const units = new UnitCount();
  for (const birth of tools.state.journalSegments()) units.born(birth);
  const generations = new Map<string, number>();
  const uploader = new SegmentUploader(
    {
      ...tools,
      units,
      level,
      inFlightMax: tools.options.segmentsInFlightMax,
      segmentBytes: tools.options.segmentBytes,
      generationOf: (diskId) => generations.get(toHex(diskId)) ?? 0,
      onUploaded: (bytes) => {
        tools.progress.uploadedBytes += bytes;
      },
    },
    signal,
  );
  const next = (): ReturnType<Tenure['nextSegment']> => tools.tenure.nextSegment();
  const sealedPages: SealedPages = new Map();
  const data = new SegmentPacker(next, tools.options.segmentBytes, uploader, sealedPages);
  const pages = new SegmentPacker(next, tools.options.segmentBytes, uploader, sealedPages);
  try {
    tools.progress.capacityBytes = snapshot.disks.reduce((sum, disk) => sum + disk.capacityBytes, 0);
    if (lost !== null) tools.state.clearPages();
    const attachments = await protectAttachments(
      snapshot.attachments,
      lost === null ? (previous?.attachments ?? []) : [],
      (id) => isDamaged(id) || isSparse(id),
      data,
      units,
      signal,
    );
    const results: DiskResult[] = [];
    const parts = { level, data, pages, isDamaged, isSparse, compaction, resent, nowMs };
    for (const source of snapshot.disks) {
      const decision = decide(source, baseline, tools);
      generations.set(toHex(decision.geometry.diskId), decision.generation);
      results.push(await protectOrResync(decision, parts, tools, signal));
    }
    const consistency = await snapshot.settleConsistency(signal);
    await pages.flush();
    const roots = await placeMaps(results, data, signal);
    await data.flush();
    await uploader.drain();
    const disks = await describeDisks(results, roots, data);
    for (const result of results) units.add(result.units);
    await dropWhatIsGone(baseline, results, tools, units, signal);
    requireDurable(units);
    const repaired = describeRepair(baseline, attachments, results, resent.blocks);
    const { uploadedBytes } = uploader;
    const told = { ...learned(results), ...compacted(compaction, results) };
    return { disks, attachments, consistency, units, uploadedBytes, repaired, ...told };
  } finally {
    await uploader.settle();
  }
}

/** A run that repairs has enough to do: nothing is compacted by it. */
async function planFor(
  { previous, lost, damage }: Baseline,
  nowMs: number,
  { tenure, state, options }: ReplicateTools,
  signal: AbortSignal,
): Promise<Compaction> {
  const isWhole = lost === null && damage.segments.size === 0;
  const how = { chain: tenure.state, state, limits: options.compaction, nowMs, isWhole };
  return await planCompaction(isWhole ? (previous?.disks ?? []) : [], how, signal);
}

interface DiskParts {
  readonly level: CompressionLevel;
  readonly data: SegmentPacker;
  readonly pages: SegmentPacker;
  readonly isDamaged: (id: SegmentId) => boolean;
  readonly isSparse: (id: SegmentId) => boolean;
  readonly compaction: Compaction;
  readonly resent: { blocks: number };
  /** Of the snapshot. */
  readonly nowMs: number;
}

function learned(results: readonly DiskResult[]): Pick<ReplicatedSnapshot, 'laps' | 'found'> {
  return {
    laps: results.map(({ lap }) => lap).filter((lap) => lap !== null),
    found: results.map(({ decision: { mode, geometry }, changes }) => ({
      ...changes,
      mode,
      capacityBytes: geometry.capacityBytes,
    })),
  };
}

function compacted(
  { segments, credit }: Compaction,
  results: readonly DiskResult[],
): Pick<ReplicatedSnapshot, 'compactedSegments' | 'credit'> {
  // A first copy, or a repair, says nothing of how much changes.
  const compared = results.filter(({ decision: { mode } }) => mode === 'sync' || mode === 'resync');
  const sum = (of: (changes: DiskChanges) => number): number =>
    Math.round(compared.reduce((total, { changes }) => total + of(changes), 0));
  const sent = {
    changed: sum(({ storedBytes }) => storedBytes),
    compacted: sum(({ compactedBytes }) => compactedBytes),
  };
  return { compactedSegments: segments.size, credit: credit(sent) };
}

function decide(source: BlockSource, baseline: Baseline, tools: ReplicateTools): DiskDecision {
  const before = baseline.previous?.disks.find(({ label }) => label === source.label) ?? null;
  const decision = decideDisk(source, before, {
    ...tools.options,
    pages: tools.pages,
    newDiskId: (label) => tools.state.newDiskId(label),
  });
  return doubted(settle(decision, baseline, tools.pages), tools);
}

/** An earlier run found tracking wrong, and did not come to publish what it then read. */
function doubted(decision: DiskDecision, { laps }: ReplicateTools): DiskDecision {
  const doubt = laps.get(toHex(decision.geometry.diskId))?.doubt ?? '';
  return doubt === '' || decision.since === null ? decision : resyncDecision(decision, doubt);
}

/** What damage, or a newest point that is lost for us, makes of a decision. */
function settle(decision: DiskDecision, { lost, damage }: Baseline, pages: PageSource): DiskDecision {
  if (lost !== null) return resendDecision(decision, lost, pages);
  if (decision.old.root === null) return decision;
  const diskId = toHex(decision.geometry.diskId);
  if (damage.unreadable.has(diskId)) return resendDecision(decision, 'repair: its block map could not be read', pages);
  const touched = damage.touched.get(diskId) ?? 0;
  return touched === 0 ? decision : repairDecision(decision, touched);
}

function describeRepair(
  { previous, lost, damage }: Baseline,
  attachments: readonly AttachmentState[],
  results: readonly DiskResult[],
  resentBlocks: number,
): RepairedSnapshot | null {
  if (damage.segments.size === 0 && (lost === null || lost === mapLacking)) return null;
  const hurt = (previous?.attachments ?? []).filter(
    ({ chunks }) => lost !== null || chunks.some(({ at }) => damage.segments.has(segmentKey(at))),
  );
  const resentDisks = results.filter(
    ({ decision }) => lost !== null || damage.unreadable.has(toHex(decision.geometry.diskId)),
  );
  return {
    segments: [...damage.segments.values()].sort(compareSegments),
    resentBlocks: resentBlocks + resentDisks.reduce((sum, { sentBlocks }) => sum + sentBlocks, 0),
    resentAttachments: attachments
      .map(({ name }) => name)
      .filter((name) => hurt.some((before) => before.name === name)),
    resentDisks: resentDisks.map(({ decision }) => decision.source.label),
  };
}

/** A disk whose change tracking is lost, or which a spot check finds to be wrong, is read in full. */
async function protectOrResync(
  decision: DiskDecision,
  parts: DiskParts,
  tools: ReplicateTools,
  signal: AbortSignal,
): Promise<DiskResult> {
  const { nowMs } = parts;
  const lap = tools.laps.get(toHex(decision.geometry.diskId)) ?? null;
  const { capacityBytes } = tools.progress;
  const check = planSpotCheck(decision, lap, { nowMs, capacityBytes, limits: tools.options.spotCheck });
  try {
    return await protectOnce(decision, check, parts, tools, signal);
  } catch (error) {
    if (!(error instanceof ChangeTrackingLost || error instanceof SpotCheckMismatch)) throw error;
    if (decision.since === null) throw error;
    if (error instanceof SpotCheckMismatch && check.known !== null) tools.onMismatch(check.known, error.message);
    const again = resyncDecision(decision, error.message);
    return await protectOnce(again, afterWholeDisk(again, lap, nowMs), parts, tools, signal);
  }
}

async function protectOnce(
  decision: DiskDecision,
  check: SpotCheck,
  parts: DiskParts,
  tools: ReplicateTools,
  signal: AbortSignal,
): Promise<DiskResult> {
  const units = new UnitCount();
  const { source, geometry, generation, old, since } = decision;
  const full = decision.fullReadReason !== '';
  const { workers, shared, state, progress, options } = tools;
  const changedBefore = progress.changedBytes;
  const changes: DiskChanges = { changedBytes: 0, storedBytes: 0, compactedBytes: 0 };
  progress.toCheckBytes = progress.checkedBytes + check.blocks * geometry.blockSize;
  const extents = source.changedExtents(since, signal);
  const writer = await protectDisk(
    {
      source,
      geometry,
      generation,
      old,
      full,
      extents,
      checks: check.ranges,
      ...parts,
      compaction: toCompact(decision, parts),
    },
    {
      workers,
      keys: shared,
      ...parts,
      state,
      stretchesAheadMax: options.workers * stretchesAheadPerWorker,
      progress,
      changes,
    },
    units,
    signal,
  );
  const sentBlocks = (progress.changedBytes - changedBefore) / geometry.blockSize;
  return { decision, writer, units, sentBlocks, lap: check.next, changes };
}

/** A full listing meets all there is, and a source that holds nothing but changes has no other blocks to read. */
function toCompact({ source, since, geometry }: DiskDecision, { compaction }: DiskParts): DiskCompaction {
  if (since === null || source.changesOnly) return nothingToCompact;
  return compaction.disks.get(toHex(geometry.diskId)) ?? nothingToCompact;
}

/** Disks that the machine no longer has, maps of generations that ended, and all that no map tells of any more. */
async function dropWhatIsGone(
  { previous, lost, damage }: Baseline,
  results: readonly DiskResult[],
  tools: ReplicateTools,
  units: UnitCount,
  signal: AbortSignal,
): Promise<void> {
  const { segments } = tools.tenure.state;
  if (lost !== null) {
    units.dropAll(segments.values());
    return;
  }
  if (damage.unreadable.size > 0) units.dropAll(segments.values(), damage.readableUnits);
  for (const disk of previous?.disks ?? []) {
    const kept = results.find(({ decision }) => sameBytes(decision.geometry.diskId, disk.diskId));
    const goesOn = kept?.decision.generation === disk.generation;
    if (damage.unreadable.has(toHex(disk.diskId))) await forgetPages(disk, tools.pages, units, signal);
    else if (!goesOn && disk.root !== null) {
      const map = new BlockMap(disk, disk.root, tools.pages);
      await dropSubtree(map, disk.root, map.level, 0, units, signal);
    }
  }
}

/** What can still be read of a map that is left behind need not stay in the cache; its units are counted already. */
async function forgetPages(disk: DiskState, pages: PageSource, units: UnitCount, signal: AbortSignal): Promise<void> {
  const guide: WalkGuide = {
    enter: () => true,
    unreadable: (_ref, _level, error) => {
      if (!isDamage(error)) throw error;
    },
  };
  for await (const { ref } of new BlockMap(disk, disk.root, pages).pages(signal, guide)) units.forgetPage(ref);
}

async function placeMaps(
  results: readonly DiskResult[],
  data: SegmentPacker,
  signal: AbortSignal,
): Promise<readonly (RecordAddress | PageRef | null)[]> {
  const roots: (RecordAddress | PageRef | null)[] = [];
  for (const { writer } of results) roots.push(await writer.finish(data, signal));
  return roots;
}

/** After everything was sealed: a new root's digest is known only then. */
async function describeDisks(
  results: readonly DiskResult[],
  roots: readonly (RecordAddress | PageRef | null)[],
  packer: SegmentPacker,
): Promise<readonly DiskState[]> {
  return await Promise.all(
    results.map(async ({ decision }, i) => ({
      ...decision.geometry,
      label: decision.source.label,
      generation: decision.generation,
      fullReadReason: decision.fullReadReason,
      generationReason: decision.generationReason,
      referencePoint: decision.source.referencePoint,
      root: await withDigest(roots[i] ?? null, packer),
    })),
  );
}

async function withDigest(root: RecordAddress | PageRef | null, packer: SegmentPacker): Promise<PageRef | null> {
  if (root === null || 'digest' in root) return root;
  const digest = (await packer.pageDigests(root)).get(root.record);
  if (digest === undefined) throw new Error(`the root page in segment ${root.tenure}.${root.number} was not sealed`);
  return { ...root, digest };
}

/** The last check before publishing: every segment that the new point uses is durable. */
function requireDurable(units: UnitCount): void {
  const missing = units.unborn();
  if (missing.length > 0) throw new Error(`segments ${missing.join(', ')} are in use but were never stored`);
}
