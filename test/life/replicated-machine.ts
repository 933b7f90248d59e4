import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { type PublishedPoint, protectMachine } from '../../agent/protect/protect-machine.ts';
import { noProgress } from '../../agent/protect/replicate-snapshot.ts';
import { MachineState } from '../../agent/state/machine-state.ts';
import { openChain } from '../../replica/chain.ts';
import { findGarbage } from '../../replica/garbage.ts';
import { segmentsPrefix } from '../../replica/names.ts';
import type { OpenRepository } from '../../replica/open-repository.ts';
import { isPinName } from '../../replica/pins.ts';
import { planPrune } from '../../replica/plan-prune.ts';
import { prunePoints } from '../../replica/prune.ts';
import type { RetentionPolicy } from '../../replica/retention.ts';
import { type Swept, sweep } from '../../replica/sweep.ts';
import { Retention, withRetention } from '../../storage-targets/with-retention.ts';
import { type MemoryGate, openMemoryTarget } from '../fakes/memory-target.ts';
import { Random } from '../random.ts';
import { RigReader } from '../rig/rig-reader.ts';
import type { Fleet } from './fleet.ts';
import { neededBytes } from './space-needed.ts';
import type { LivingMachine } from './workload.ts';

/** A machine of the fleet, and the hosts that replicate, prune, sweep and restore it. */

const dayMs = 24 * 3_600_000;
const never = new AbortController().signal;
export const segmentBytes = 2 ** 20;
/** A day, and the ten days to spare that every lock has. */
const lockDays = 1;

export interface SyncCost {
  readonly uploadedBytes: number;
  /** Without the begin entry and key records. */
  readonly puts: number;
  readonly reads: number;
  readonly segmentReads: number;
  readonly keyServiceCalls: number;
}

export class ReplicatedMachine {
  readonly living: LivingMachine;
  readonly machineId = Uint8Array.from(randomBytes(16));
  readonly costs: SyncCost[] = [];
  readonly policy: RetentionPolicy;
  readonly #fleet: Fleet;
  readonly #random: Random;
  /** Versions of the blocks at each point that nobody pruned. */
  readonly #known = new Map<number, Uint32Array>();
  host = 'first';
  brokenRuns = 0;
  runsWithoutKeyService = 0;
  uploadedBytes = 0;
  compactedBytes = 0;

  constructor(fleet: Fleet, living: LivingMachine, policy: RetentionPolicy, seed: number) {
    this.#fleet = fleet;
    this.living = living;
    this.living.machine.now = () => fleet.nowMs;
    this.policy = policy;
    this.#random = new Random(seed);
  }

  get name(): string {
    return this.living.machine.name;
  }

  /** `breaks`: from one of the first puts on the store gives no answer, and whether it did what it was asked nobody knows. */
  async sync({ takeOver = false, breaks = false } = {}): Promise<void> {
    const fleet = this.#fleet;
    const before = fleet.keyServiceCalls;
    const cost = { puts: 0, reads: 0, segmentReads: 0 };
    let putsLeft = breaks ? this.#random.below(3) : Number.POSITIVE_INFINITY;
    const gate: MemoryGate = async ({ kind, name }) => {
      if (putsLeft < 0) return { kind: 'lost' };
      if (kind === 'put' && putsLeft-- <= 0) return { kind: this.#random.chance(0.5) ? 'lost' : 'unanswered' };
      if (kind === 'put' && !name.includes('/keys/')) cost.puts++;
      if (kind === 'get' || kind === 'head' || kind === 'list') cost.reads++;
      if (kind === 'get' && name.startsWith(segmentsPrefix(this.machineId))) cost.segmentReads++;
      return { kind: 'done' };
    };
    const retention = fleet.store.objectLock ? new Retention(lockDays) : null;
    const plain = openMemoryTarget(fleet.store, gate);
    const target = retention === null ? plain : withRetention(plain, retention, isPinName);
    const versions = this.living.versions.slice();
    let published: PublishedPoint;
    try {
      published = await this.#protect(await fleet.open(target), retention, takeOver);
    } catch (error) {
      if (!breaks) throw error;
      this.brokenRuns++;
      await this.#rememberUnanswered(versions);
      return;
    }
    const { uploadedBytes } = published.manifest;
    this.#known.set(published.point, versions);
    this.uploadedBytes += uploadedBytes;
    if (published.keyServiceAway !== null) this.runsWithoutKeyService++;
    this.costs.push({
      ...cost,
      puts: cost.puts - 1,
      uploadedBytes,
      keyServiceCalls: fleet.keyServiceCalls - before,
    });
  }

  /** The point may be there all the same. */
  async #rememberUnanswered(versions: Uint32Array): Promise<void> {
    const newest = (await openChain(await this.#fleet.open(), this.machineId, never))?.state.newestPoint ?? null;
    if (newest !== null && !this.#known.has(newest.seq)) this.#known.set(newest.seq, versions);
  }

  async #protect(repo: OpenRepository, retention: Retention | null, takeOver: boolean): Promise<PublishedPoint> {
    const { provider, agent, workers, nowMs, folder } = this.#fleet;
    using state = new MachineState(join(folder, this.host), this.name);
    const progress = noProgress();
    const published = await protectMachine(
      {
        ...{ repo, machineId: this.machineId, machineName: this.name, connection: this.living.machine },
        ...{ provider, agent, state, progress, retention, workers: workers.pipeline, now: () => nowMs },
        options: {
          access: 'full',
          sourceKind: 'image',
          snapshot: { quiesce: 'off', whenChanging: 'refuse' },
          resync: false,
          takeOver,
          segmentBytes,
          compression: 1,
          workers: 1,
          segmentsInFlightMax: 4,
          spotCheck: { everyMs: 30 * dayMs, bytesPerRunMax: 2 ** 30 },
          changeAlarm: { enabled: false, fromBytes: 0 },
          compaction: { share: 0.25, bytesPerRunMax: 2 ** 30 },
        },
      },
      never,
    );
    this.compactedBytes += progress.compactedBytes;
    return published;
  }

  async rotateKey(): Promise<void> {
    const chain = await openChain(await this.#fleet.open(), this.machineId, never);
    using state = new MachineState(join(this.#fleet.folder, this.host), this.name);
    state.askForRotation(chain?.state.epoch ?? 0);
  }

  async prune(): Promise<void> {
    const { agent, nowMs } = this.#fleet;
    const rules = { policy: this.policy, nowMs, pinned: new Set<number>(), floorMs: 0, flags: async () => () => false };
    const pruner = {
      agent,
      now: () => nowMs,
      choose: async ({
        state,
      }: {
        state: { points: ReadonlyMap<number, { seq: number; timeMs: number; digest: Uint8Array }> };
      }) => {
        const planned = await planPrune([...state.points.values()], rules);
        return planned.filter(({ reasons }) => reasons.length === 0).map(({ seq }) => seq);
      },
    };
    const pruned = await prunePoints(await this.#fleet.open(), this.machineId, pruner, never);
    for (const point of pruned) this.#known.delete(point);
  }

  /** By somebody without any key. */
  async sweep(): Promise<Swept> {
    const repo = await this.#fleet.open();
    return await sweep(repo.target, findGarbage(repo, this.machineId, never), never);
  }

  /** Restores those points (null: one of them), and says which are not what the disk was at their snapshot. */
  async wrongPoints(which: 'all' | 'one'): Promise<{ readonly restored: number; readonly wrong: readonly number[] }> {
    using reader = await this.#reader();
    const { points } = reader.replica;
    const wrong: number[] = [];
    const chosen = which === 'all' ? points : [this.#random.pick(points)];
    for (const point of chosen) {
      const [disk] = (await reader.replica.openPoint(point, never)).manifest.disks;
      const versions = this.#known.get(point);
      if (disk === undefined || versions === undefined) wrong.push(point);
      else if (!this.living.isContent(await reader.content(disk), versions)) wrong.push(point);
    }
    return { restored: chosen.length, wrong };
  }

  async neededBytes(): Promise<number> {
    using reader = await this.#reader();
    return await neededBytes(reader, never);
  }

  get storedBytes(): number {
    return this.#fleet.bytesUnder(segmentsPrefix(this.machineId));
  }

  async #reader(): Promise<RigReader> {
    const { provider, workers } = this.#fleet;
    return await RigReader.open(await this.#fleet.open(), this.machineId, [provider], workers.restore, never);
  }
}
