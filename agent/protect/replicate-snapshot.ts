import { KeyRefused } from '../../crypto/errors.ts';
import { ChangeTrackingLost } from '../../hypervisors/errors.ts';
import type { Consistency, MachineSnapshot } from '../../hypervisors/hypervisor.ts';
import { BlockMap, type PageSource } from '../../replica/block-map.ts';
import { sameBytes, toHex } from '../../replica/encoding.ts';
import type { EpochKeys } from '../../replica/key-ring.ts';
import type { AttachmentState, DiskState, Manifest } from '../../replica/manifest.ts';
import { dropSubtree, type MapWriter } from '../../replica/map-writer.ts';
import type { PageRef } from '../../replica/page.ts';
import type { RecordAddress } from '../../replica/segment.ts';
import type { Tenure } from '../../replica/tenure.ts';
import { UnitCount } from '../../replica/unit-count.ts';
import type { MachineState } from '../state/machine-state.ts';
import { protectAttachments } from './attachments.ts';
import type { PipelineWorkers } from './pipeline-workers.ts';
import { type DiskDecision, decideDisk, resendDecision, resyncDecision } from './plan-disks.ts';
import { type DiskProgress, protectDisk } from './protect-disk.ts';
import { type SealedPages, SegmentPacker } from './segment-packer.ts';
import { SegmentUploader } from './segment-uploader.ts';
import type { SharedKeys } from './shared-keys.ts';

/** All disks of one snapshot into durable segments and new maps; nothing is published yet. */

const stretchesAheadPerWorker = 2;

export interface RunProgress extends DiskProgress {
  /** Of all disks; known once the snapshot is there. */
  capacityBytes: number;
  uploadedBytes: number;
}

export interface ReplicateTools {
  readonly tenure: Tenure;
  readonly keys: EpochKeys;
  readonly shared: SharedKeys;
  readonly workers: PipelineWorkers;
  readonly state: MachineState;
  readonly pages: PageSource;
  readonly options: {
    readonly resync: boolean;
    readonly access: 'full' | 'write-only';
    readonly blocksMax?: number;
    readonly segmentBytes: number;
    readonly compressionLevel: number;
    readonly workers: number;
    readonly segmentsInFlightMax: number;
  };
  readonly progress: RunProgress;
}

export interface ReplicatedSnapshot {
  readonly disks: readonly DiskState[];
  readonly attachments: readonly AttachmentState[];
  readonly consistency: Consistency;
  readonly units: UnitCount;
  readonly uploadedBytes: number;
}

interface DiskResult {
  readonly decision: DiskDecision;
  readonly writer: MapWriter;
  readonly units: UnitCount;
}

/** `previous` is what the newest point says; null where there is none, or where this host may not open it. */
export async function replicateSnapshot(
  snapshot: MachineSnapshot,
  previous: Manifest | null,
  tools: ReplicateTools,
  signal: AbortSignal,
): Promise<ReplicatedSnapshot> {
  const startAnew = previous === null && tools.tenure.state.newestPoint !== null;
  try {
    return await replicateAgainst({ previous, startAnew }, snapshot, tools, signal);
  } catch (error) {
    const mayNotOpen = error instanceof KeyRefused && tools.options.access === 'write-only' && !startAnew;
    if (!mayNotOpen) throw error;
    // A page of the newest maps is missing here, and this host may not open it in the bucket.
    return await replicateAgainst({ previous, startAnew: true }, snapshot, tools, signal);
  }
}

interface Baseline {
  readonly previous: Manifest | null;
  /** The newest point's maps can't be opened: nothing of it is kept, and all that it used dies. */
  readonly startAnew: boolean;
}

async function replicateAgainst(
  { previous, startAnew }: Baseline,
  snapshot: MachineSnapshot,
  tools: ReplicateTools,
  signal: AbortSignal,
): Promise<ReplicatedSnapshot> {
  const units = new UnitCount();
  for (const birth of tools.state.journalSegments()) units.born(birth);
  const generations = new Map<string, number>();
  const uploader = new SegmentUploader(
    {
      ...tools,
      units,
      inFlightMax: tools.options.segmentsInFlightMax,
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
    if (startAnew) tools.state.clearPages();
    const attachments = await protectAttachments(
      snapshot.attachments,
      startAnew ? [] : (previous?.attachments ?? []),
      data,
      units,
      signal,
    );
    const results: DiskResult[] = [];
    for (const source of snapshot.disks) {
      const before = previous?.disks.find(({ label }) => label === source.label) ?? null;
      const decision = decideDisk(source, before, {
        ...tools.options,
        pages: tools.pages,
        newDiskId: (label) => tools.state.newDiskId(label),
      });
      generations.set(toHex(decision.geometry.diskId), decision.generation);
      const settled = startAnew ? resendDecision(decision, tools.pages) : decision;
      results.push(await protectOrResync(settled, { data, pages }, tools, signal));
    }
    const consistency = await snapshot.settleConsistency(signal);
    await pages.flush();
    const roots = await placeMaps(results, data, signal);
    await data.flush();
    await uploader.drain();
    const disks = await describeDisks(results, roots, data);
    for (const result of results) units.add(result.units);
    if (startAnew) units.dropAll(tools.tenure.state.segments.values());
    else await dropWhatIsGone(previous, results, tools, units, signal);
    requireDurable(units);
    return { disks, attachments, consistency, units, uploadedBytes: uploader.uploadedBytes };
  } finally {
    await uploader.settle();
  }
}

interface Packers {
  readonly data: SegmentPacker;
  readonly pages: SegmentPacker;
}

/** A disk whose change tracking is lost is read in full. */
async function protectOrResync(
  decision: DiskDecision,
  packers: Packers,
  tools: ReplicateTools,
  signal: AbortSignal,
): Promise<DiskResult> {
  try {
    return await protectOnce(decision, packers, tools, signal);
  } catch (error) {
    if (!(error instanceof ChangeTrackingLost) || decision.since === null) throw error;
    return await protectOnce(resyncDecision(decision, error), packers, tools, signal);
  }
}

async function protectOnce(
  decision: DiskDecision,
  packers: Packers,
  tools: ReplicateTools,
  signal: AbortSignal,
): Promise<DiskResult> {
  const units = new UnitCount();
  const { source, geometry, generation, old, since } = decision;
  const full = decision.fullReadReason !== '';
  const extents = source.changedExtents(since, signal);
  const { workers, shared, state, progress, options } = tools;
  const writer = await protectDisk(
    { source, geometry, generation, old, full, extents },
    {
      workers,
      keys: shared,
      ...packers,
      state,
      compressionLevel: options.compressionLevel,
      stretchesAheadMax: options.workers * stretchesAheadPerWorker,
      progress,
    },
    units,
    signal,
  );
  return { decision, writer, units };
}

/** Disks that the machine no longer has, and maps of generations that ended. */
async function dropWhatIsGone(
  previous: Manifest | null,
  results: readonly DiskResult[],
  tools: ReplicateTools,
  units: UnitCount,
  signal: AbortSignal,
): Promise<void> {
  for (const disk of previous?.disks ?? []) {
    const kept = results.find(({ decision }) => sameBytes(decision.geometry.diskId, disk.diskId));
    const goesOn = kept?.decision.generation === disk.generation;
    if (goesOn || disk.root === null) continue;
    const map = new BlockMap(disk, disk.root, tools.pages);
    await dropSubtree(map, disk.root, map.level, 0, units, signal);
  }
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
