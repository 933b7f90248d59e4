import { rootFingerprint } from '../../crypto/root-fingerprint.ts';
import { SigningKey } from '../../crypto/signing.ts';
import { sha256 } from '../../crypto/suite.ts';
import type { ChainHead } from '../../replica/chain.ts';
import { repositoryName, trustName } from '../../replica/names.ts';
import { isPinName } from '../../replica/pins.ts';
import { encodeRepository } from '../../replica/repository.ts';
import { encodeTrust, type TrustStatement } from '../../replica/trust.ts';
import type { StorageTarget } from '../../storage-targets/storage-target.ts';
import { Retention, withRetention } from '../../storage-targets/with-retention.ts';
import { withRetry } from '../../storage-targets/with-retry.ts';
import { MemoryStore, openMemoryTarget } from '../fakes/memory-target.ts';
import { Random } from '../random.ts';
import { CopyTruth } from './copy-truth.ts';
import { FreeRunning, gated, type RealPlace } from './free-running.ts';
import { type Actor, Scheduler } from './scheduler.ts';
import { Truth, Violation } from './truth.ts';

/** Rules that an actor of the test breaks on purpose. */
export type Misdeed =
  | 'publishes from an old base'
  | 'publishes before its segments are put'
  | 'uses segments below its watermark'
  | 'adopts below the watermark'
  | 'adopts after its first publish'
  | 'adopts any old tenure'
  | 'prunes the newest point'
  | 'reads without looking again';

/** What an agent host keeps on its disk, and what a clone of the host has, too. */
export interface AgentState {
  readonly key: SigningKey;
  confirmed: ChainHead | null;
  /** A clone that was made from a running host: no randomness of its own. */
  readonly stuck: boolean;
  /** How long what it locked last is locked, by what it remembers itself. */
  lockedUntilMs: number;
}

export interface Counters {
  publishes: number;
  adoptions: number;
  fenced: number;
  prunes: number;
  swept: number;
  readings: number;
  copies: number;
  /** Generations of locks. */
  locks: number;
  /** Deletions that a lock refused. */
  locked: number;
  /** Of points that were pruned meanwhile. */
  readingsOfPruned: number;
}

const rootKey = SigningKey.generate();
const agentKeys = Array.from({ length: 5 }, () => SigningKey.generate());
const repositoryId = new Uint8Array(16).fill(0xa1);
const machineId = new Uint8Array(16).fill(0xb2);
const pinnedRoot = rootFingerprint(rootKey.publicKey);

const descriptor = encodeRepository({ repositoryId, createdMs: 1, firstRoot: rootKey.publicKey }, rootKey);
const statement: TrustStatement = {
  repositoryId,
  n: 0,
  previous: new Uint8Array(32),
  createdMs: 1,
  root: rootKey.publicKey,
  lineage: [],
  recoveryPublicKey: new Uint8Array(3),
  agents: agentKeys.map((key) => ({ key: key.publicKey, revoked: null })),
  retentionFloorDays: 0,
};
const dayMs = 24 * 3_600_000;
/** In a few worlds the root key keeps every point for a while. */
const floorDays = 20;
const trustOf = (retentionFloorDays: number) => encodeTrust({ ...statement, retentionFloorDays }, rootKey);
const trusts = { none: trustOf(0), floor: trustOf(floorDays) };
/** Time passes by operations of the store. */
const startMs = 1_700_000_000_000;
const stepMs = 3 * 3_600_000;
const lockDays = 1;

export class World {
  readonly repositoryId = repositoryId;
  readonly machineId = machineId;
  readonly pinnedRoot = pinnedRoot;
  readonly misdeeds: ReadonlySet<Misdeed>;
  readonly random: Random;
  readonly scheduler: Pick<Scheduler, 'spawn' | 'stop' | 'run' | 'steps'>;
  readonly truth: Truth;
  readonly store: MemoryStore;
  readonly copy: MemoryStore;
  readonly copyTruth: CopyTruth;
  /** Null: nothing is locked in this world. Anew for each process. */
  readonly retention: (() => Retention) | null;
  readonly counters: Counters = {
    publishes: 0,
    adoptions: 0,
    fenced: 0,
    prunes: 0,
    swept: 0,
    readings: 0,
    copies: 0,
    locks: 0,
    locked: 0,
    readingsOfPruned: 0,
  };
  /** Publish attempts that ended with Fenced. */
  readonly fencedAttempts = new Set<string>();
  readonly #publishers = new Map<number, string>();
  violation: Violation | null = null;
  readonly #real: RealPlace | null;
  readonly #description: readonly (readonly [name: string, bytes: Uint8Array])[];
  #unique = 0;

  constructor(seed: number, misdeeds: ReadonlySet<Misdeed>, real: RealPlace | null = null) {
    this.#real = real;
    this.misdeeds = misdeeds;
    this.random = new Random(seed);
    this.scheduler = real === null ? new Scheduler(this.random) : new FreeRunning(this.random);
    this.retention = (real?.objectLock ?? this.random.chance(0.2)) ? () => new Retention(lockDays) : null;
    const hasFloor = this.random.chance(0.2);
    const objectLock = this.retention !== null;
    const report = (violation: Violation): void => this.report(violation);
    const facts = {
      now: () => this.store.now(),
      lockedUntil: (name: string) => this.store.read(name).retainUntil?.getTime() ?? 0,
      floorMs: hasFloor ? floorDays * dayMs : 0,
    };
    this.truth = new Truth(repositoryId, machineId, facts, report);
    this.copyTruth = new CopyTruth(this.truth, repositoryId, machineId, report);
    this.store = new MemoryStore({ objectLock, watch: this.truth });
    this.copy = new MemoryStore({ objectLock, watch: this.copyTruth });
    for (const store of [this.store, this.copy]) store.now = () => startMs + this.scheduler.steps * stepMs;
    this.#description = [
      [repositoryName, descriptor],
      [trustName(0), hasFloor ? trusts.floor : trusts.none],
    ];
  }

  /** Puts what is there before any agent comes. */
  async found(): Promise<void> {
    for (const [name, bytes] of this.#description)
      await this.bareTarget().putIfAbsent(name, bytes, { sha256: sha256(bytes) }, new AbortController().signal);
  }

  does(misdeed: Misdeed): boolean {
    return this.misdeeds.has(misdeed);
  }

  agent(number: number, stuck = false): AgentState {
    return { key: this.random.pick(agentKeys.slice(number, number + 1)), confirmed: null, stuck, lockedUntilMs: 0 };
  }

  unique(): number {
    return ++this.#unique;
  }

  report(violation: Violation): void {
    this.violation ??= violation;
    this.scheduler.stop();
  }

  /** Some actors retry lost operations, others give up at once and begin again. */
  targetOf(actor: Actor): StorageTarget {
    return this.#retrying(
      this.#real === null ? openMemoryTarget(this.store, actor.gate, 4) : gated(this.#real.store, actor.gate),
    );
  }

  #retrying(target: StorageTarget): StorageTarget {
    const clock = { now: () => 0, sleep: () => Promise.resolve() };
    return withRetry(target, { attemptsMax: this.random.pick([1, 3]), clock, random: () => 0 });
  }

  /** The store itself: nothing interleaves, and nothing breaks. */
  bareTarget(): StorageTarget {
    return this.#real?.store ?? openMemoryTarget(this.store);
  }

  copyTargetOf(actor: Actor): StorageTarget {
    return this.#retrying(
      this.#real === null ? openMemoryTarget(this.copy, actor.gate, 4) : gated(this.#real.copy, actor.gate),
    );
  }

  /** The same for one process, which locks what it puts where that is done in this world. */
  lockingTarget(target: StorageTarget, retention: Retention | null): StorageTarget {
    return retention === null ? target : withRetention(target, retention, isPinName);
  }

  /** Says that `publisher` was told that its entry `seq` exists. */
  published(seq: number, publisher: string): void {
    const other = this.#publishers.get(seq);
    if (other !== undefined) {
      this.report(new Violation('two publishers of one entry', `${other} and ${publisher} both have entry ${seq}`));
    }
    this.#publishers.set(seq, publisher);
    this.counters.publishes++;
  }
}
