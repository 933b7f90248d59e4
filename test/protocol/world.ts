import { rootFingerprint } from '../../crypto/root-fingerprint.ts';
import { SigningKey } from '../../crypto/signing.ts';
import { sha256 } from '../../crypto/suite.ts';
import type { ChainHead } from '../../replica/chain.ts';
import { repositoryName, trustName } from '../../replica/names.ts';
import { encodeRepository } from '../../replica/repository.ts';
import { encodeTrust, type TrustStatement } from '../../replica/trust.ts';
import type { StorageTarget } from '../../storage-targets/storage-target.ts';
import { withRetry } from '../../storage-targets/with-retry.ts';
import { MemoryStore, openMemoryTarget } from '../fakes/memory-target.ts';
import { Random } from '../random.ts';
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
}

export interface Counters {
  publishes: number;
  adoptions: number;
  fenced: number;
  prunes: number;
  swept: number;
  readings: number;
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
const trust = encodeTrust(statement, rootKey);

export class World {
  readonly repositoryId = repositoryId;
  readonly machineId = machineId;
  readonly pinnedRoot = pinnedRoot;
  readonly misdeeds: ReadonlySet<Misdeed>;
  readonly random: Random;
  readonly scheduler: Scheduler;
  readonly truth: Truth;
  readonly store: MemoryStore;
  readonly counters: Counters = {
    publishes: 0,
    adoptions: 0,
    fenced: 0,
    prunes: 0,
    swept: 0,
    readings: 0,
    readingsOfPruned: 0,
  };
  /** Publish attempts that ended with Fenced. */
  readonly fencedAttempts = new Set<string>();
  readonly #publishers = new Map<number, string>();
  violation: Violation | null = null;
  #unique = 0;

  constructor(seed: number, misdeeds: ReadonlySet<Misdeed>) {
    this.misdeeds = misdeeds;
    this.random = new Random(seed);
    this.scheduler = new Scheduler(this.random);
    this.truth = new Truth(repositoryId, machineId, (violation) => this.report(violation));
    this.store = new MemoryStore({ watch: this.truth });
    for (const [name, bytes] of [
      [repositoryName, descriptor],
      [trustName(0), trust],
    ] as const) {
      this.store.put(name, bytes, sha256(bytes), null);
    }
  }

  does(misdeed: Misdeed): boolean {
    return this.misdeeds.has(misdeed);
  }

  agent(number: number, stuck = false): AgentState {
    return { key: this.random.pick(agentKeys.slice(number, number + 1)), confirmed: null, stuck };
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
    const attemptsMax = this.random.pick([1, 3]);
    const clock = { now: () => 0, sleep: () => Promise.resolve() };
    return withRetry(openMemoryTarget(this.store, actor.gate, 4), { attemptsMax, clock, random: () => 0 });
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
