import type { KeyProvider } from '../../crypto/key-provider.ts';
import type { SigningKey } from '../../crypto/signing.ts';
import { SnapshotIncomplete } from '../../hypervisors/errors.ts';
import type {
  HypervisorConnection,
  MachineSnapshot,
  ReferencePoint,
  SnapshotOptions,
} from '../../hypervisors/hypervisor.ts';
import { type Chain, type ChainHead, openChain } from '../../replica/chain.ts';
import type { ChainState } from '../../replica/chain-state.ts';
import { type EpochKeys, KeyRing } from '../../replica/key-ring.ts';
import { type Manifest, sealManifest } from '../../replica/manifest.ts';
import { segmentKey } from '../../replica/names.ts';
import type { OpenRepository } from '../../replica/open-repository.ts';
import { SegmentReader } from '../../replica/segment-reader.ts';
import { type HeadMark, type PublishFields, Tenure } from '../../replica/tenure.ts';
import { requireCertified } from '../../replica/trust.ts';
import type { UnitCount } from '../../replica/unit-count.ts';
import type { Retention } from '../../storage-targets/with-retention.ts';
import type { MachineState } from '../state/machine-state.ts';
import type { ChangeLimits } from '../vigilance/change-alarm.ts';
import { type Alarm, type TrackRecord, withDoubt, withPoint } from '../vigilance/track-record.ts';
import type { CompactionLimits } from './compaction.ts';
import { judgeRun } from './judge-run.ts';
import { lockIfDue, notExtended } from './lock-points.ts';
import { newestManifest } from './newest-manifest.ts';
import { checkOwnership } from './ownership.ts';
import { cachedPages } from './page-cache.ts';
import { PipelineWorkers } from './pipeline-workers.ts';
import {
  type RepairedSnapshot,
  type ReplicatedSnapshot,
  type ReplicateTools,
  type RunProgress,
  replicateSnapshot,
} from './replicate-snapshot.ts';
import { openRunKeys } from './run-keys.ts';
import { SharedKeys } from './shared-keys.ts';
import type { SpotCheckLimits } from './spot-check.ts';

/** snapshot → changed blocks → segments → publish: one run of one machine. */

export interface ProtectOptions {
  readonly access: 'full' | 'write-only';
  readonly sourceKind: string;
  readonly snapshot: SnapshotOptions;
  readonly resync: boolean;
  /** The operator's word that this host is to protect the machine from now on. */
  readonly takeOver: boolean;
  /** A disk with more blocks gets larger ones; the format's own limit where it is not given. */
  readonly blocksMax?: number;
  readonly segmentBytes: number;
  readonly compression: number | 'auto';
  readonly workers: number;
  readonly segmentsInFlightMax: number;
  readonly spotCheck: SpotCheckLimits;
  readonly compaction: CompactionLimits;
  readonly changeAlarm: ChangeLimits;
}

export interface ProtectContext {
  readonly repo: OpenRepository;
  readonly machineId: Uint8Array;
  readonly machineName: string;
  readonly connection: HypervisorConnection;
  readonly provider: KeyProvider;
  readonly agent: SigningKey;
  readonly state: MachineState;
  readonly options: ProtectOptions;
  /** How long points are immutable; null where the configuration wants no object lock. */
  readonly retention?: Retention | null;
  /** Shared by several runs; a run that is given none has its own. */
  readonly workers?: PipelineWorkers;
  readonly progress: RunProgress;
  /** Milliseconds since 1970. */
  readonly now: () => number;
}

/** What a run achieved. Times in milliseconds since 1970. */
export interface PublishedPoint {
  readonly point: number;
  readonly head: ChainHead;
  readonly manifest: Manifest;
  readonly publishedMs: number;
  /** Time between this point's publish and the previous point's snapshot; null for the first. */
  readonly rpoMs: number | null;
  /** How long the guest stood still for the snapshot; null where nothing froze it. */
  readonly frozenMs: number | null;
  /** Blocks that an interrupted run had sent already. */
  readonly adopted: boolean;
  /** What was damaged of the point before and was stored again; null where no damage was known or met. */
  readonly repair: Repair | null;
  /** What a person should look at: tracking that a spot check found wrong, changes that are not this machine's usual ones. */
  readonly alarms: readonly Alarm[];
  /** Mostly dead segments that the point does without, because what was alive of them was sent again. */
  readonly compactedSegments: number;
  /** What the key service's silence was; null where it answered or was not asked. */
  readonly keyServiceAway: string | null;
}

export interface Repair extends RepairedSnapshot {
  /** Older points that lie in the life of a damaged segment: what they need of it is lost for good. */
  readonly hurtPoints: readonly number[];
}

/** Publishes one recovery point, or throws and publishes none. */
export async function protectMachine(context: ProtectContext, signal: AbortSignal): Promise<PublishedPoint> {
  try {
    return await publishOnePoint(context, null, signal);
  } catch (error) {
    // Only while it was read did it turn out that a disk is needed whole.
    if (!(error instanceof SnapshotIncomplete)) throw error;
    return await publishOnePoint(context, error.message, signal);
  }
}

/** `wholeBecause`: why the snapshot is to hold everything, where its source can't for the price of the changes; null: it need not. */
async function publishOnePoint(
  context: ProtectContext,
  wholeBecause: string | null,
  signal: AbortSignal,
): Promise<PublishedPoint> {
  const { repo, machineId, state, options } = context;
  const chain = await openChain(repo, machineId, signal);
  requireCertified(repo.trust, context.agent.publicKey, machineId, (chain?.head.seq ?? 0) + 1);
  await checkOwnership(repo, chain, state, options.takeOver, signal);
  using ring = new KeyRing(repo, { machineId, state: { epochs: chain?.state.epochs ?? new Map() } }, [
    context.provider,
  ]);
  const previous = chain === null ? null : await newestManifest(repo, chain, ring, state, options.access, signal);
  const asked = { ...options.snapshot, since: referencePointsOf(previous, wholeBecause, options, state) };
  await using own = new AsyncDisposableStack();
  // Threads take as long to start as most snapshots to be taken.
  const workers = context.workers ?? own.use(new PipelineWorkers(options.workers));
  await using snapshot = await context.connection.snapshot({ name: context.machineName }, asked, signal);
  const run = { ...options, ...context };
  const { keys, begin, lost, keyServiceAway } = await openRunKeys(repo, chain, machineId, ring, state, run, signal);
  if (lost !== null) state.clearJournal();
  const adopt = prepareJournal(chain, state);
  const staging: Staging = { manifest: null, track: null, droppedPages: [] };
  const mark = markOf(state, staging);
  const tenure = await Tenure.begin(
    repo,
    machineId,
    chain,
    { ...begin, adopt },
    { agent: context.agent, mark, now: context.now },
    signal,
  );

  using reader = new SegmentReader(repo, machineId, ring);
  using shared = new SharedKeys(keys);
  const tools: ReplicateTools = {
    tenure,
    keys,
    shared,
    workers,
    state,
    pages: cachedPages(state, reader),
    lost,
    options: { ...options, wholeBecause },
    progress: context.progress,
    ...knownTracking(state, snapshot),
  };
  const replicated = await replicateSnapshot(snapshot, previous, tools, signal);

  const described = describe(context, snapshot, replicated);
  const { manifest, track } = judgeRun(described, previous, replicated, state.trackRecord, options);
  const lockFailure = await lockIfDue(context.retention ?? null, tenure, replicated.units.births(), state, signal);
  const { lockUntilMs } = tenure.state;
  Object.assign(staging, { manifest, track, droppedPages: replicated.units.droppedPages });
  const entry = await tenure.publish(publishFields(keys, manifest, replicated.units, lockUntilMs), signal);
  snapshot.notePublished?.();
  if (lockFailure !== null) throw notExtended(entry.seq, lockUntilMs, lockFailure);
  const publishedMs = context.now();
  const rpoMs = previous === null ? null : publishedMs - previous.snapshotTimeMs;
  const repair = describeRepair(tenure.state, replicated.repaired, entry.seq, lost !== null);
  const alarms = state.trackRecord.alarms.filter(({ point }) => point === entry.seq);
  const { frozenMs } = snapshot;
  const when = { publishedMs, rpoMs, frozenMs };
  const { compactedSegments } = replicated;
  const point = { point: entry.seq, head: tenure.head, manifest, adopted: adopt, compactedSegments };
  return { ...point, ...when, repair, alarms, keyServiceAway };
}

function publishFields(keys: EpochKeys, manifest: Manifest, units: UnitCount, immutableUntilMs: number): PublishFields {
  const { key, machineKeys, context } = keys;
  return {
    epoch: context.epoch,
    births: units.births(),
    deaths: units.deaths(),
    immutableUntilMs,
    sealManifest: (seq, tenure) => sealManifest(key, machineKeys.saltKey, { context, seq, tenure }, manifest),
  };
}

/** A mismatch is kept at once: the run may fail before it publishes what it then reads. */
function knownTracking(state: MachineState, { takenAt }: MachineSnapshot): Pick<ReplicateTools, 'laps' | 'onMismatch'> {
  return {
    laps: new Map(state.trackRecord.laps.map((lap) => [lap.diskId, lap])),
    onMismatch: (disk, what) => state.keepTrackRecord(withDoubt(state.trackRecord, disk, what, takenAt.getTime())),
  };
}

/** What the disks will be asked by: none where they are read in full anyway. */
function referencePointsOf(
  previous: Manifest | null,
  wholeBecause: string | null,
  { resync }: ProtectOptions,
  { damagedSegments }: MachineState,
): ReadonlyMap<string, ReferencePoint> {
  const full = wholeBecause !== null || resync || damagedSegments.length > 0;
  const disks = full ? [] : (previous?.disks ?? []);
  return new Map(disks.map(({ label, referencePoint }) => [label, referencePoint]));
}

/** What the next point will have made of the state, once its entry exists. */
interface Staging {
  manifest: Manifest | null;
  track: TrackRecord | null;
  droppedPages: readonly Uint8Array[];
}

function markOf(state: MachineState, staging: Staging): HeadMark {
  return {
    pending(head: ChainHead): void {
      if (staging.manifest !== null) {
        state.stagePoint(head.digest, staging.manifest, staging.track && withPoint(staging.track, head.seq));
        state.stageRepair();
      }
      state.addPendingHead(head);
    },
    confirmed(head: ChainHead): void {
      if (staging.manifest !== null) state.settlePoint(staging.droppedPages);
      state.setHead(head);
    },
  };
}

/** `everyPoint`: the key of an epoch is lost, and no map tells which older points need it. */
function describeRepair(
  state: ChainState,
  repaired: RepairedSnapshot | null,
  newPoint: number,
  everyPoint: boolean,
): Repair | null {
  if (repaired === null) return null;
  const lives = repaired.segments.map((id) => state.segments.get(segmentKey(id))).filter((life) => life !== undefined);
  const older = [...state.points.keys()].filter((point) => point !== newPoint);
  const isHurt = (point: number): boolean =>
    everyPoint || lives.some(({ birth, death }) => birth <= point && (death === 0 || point < death));
  return { ...repaired, hurtPoints: older.filter(isHurt) };
}

/** Keeps the journal of an interrupted run if its segments may still be adopted; true when there is something to adopt. */
function prepareJournal(chain: Chain | null, state: MachineState): boolean {
  state.dropStaged();
  const journaled = state.journalSegments();
  const adoptable = (segment: { tenure: number; number: number }): boolean => {
    if (chain === null) return false;
    if (segment.tenure === chain.state.tenure) return segment.number > chain.state.watermark;
    if (chain.state.hasPublished) return false;
    return chain.state.adopted.some(({ tenure, watermark }) => tenure === segment.tenure && segment.number > watermark);
  };
  if (journaled.length > 0 && journaled.every(adoptable)) return true;
  state.clearJournal();
  return false;
}

function describe(context: ProtectContext, snapshot: MachineSnapshot, replicated: ReplicatedSnapshot): Manifest {
  return {
    machineName: context.machineName,
    sourceKind: context.options.sourceKind,
    snapshotTimeMs: snapshot.takenAt.getTime(),
    consistency: replicated.consistency,
    readBytes: context.progress.readBytes,
    changedBytes: context.progress.changedBytes,
    uploadedBytes: replicated.uploadedBytes,
    disks: replicated.disks,
    excluded: snapshot.excluded,
    attachments: replicated.attachments,
  };
}
