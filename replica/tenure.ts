import type { SigningKey } from '../crypto/signing.ts';
import { type Chain, type ChainHead, checkKnownHead, openChain, ReplicaNotFound } from './chain.ts';
import type { ChainEntry, EntryBody } from './chain-entry.ts';
import { ChainState } from './chain-state.ts';
import type { Birth, Death } from './control.ts';
import { toHex } from './encoding.ts';
import { type SegmentId, segmentName } from './names.ts';
import { type OpenRepository, refreshTrust } from './open-repository.ts';
import { Fenced, putOnce } from './put-once.ts';
import { writeEntry } from './write-entry.ts';

/** Writing a machine's chain: one agent's span of ownership, from its `begin` entry until somebody else's. */

const rebaseAttemptsMax = 32;
const noDigest = new Uint8Array(32);
const noControl = { births: [], deaths: [] };

/** Remembers the head durably, so that the next run knows its own entries and notices a rolled-back store. */
export interface HeadMark {
  /** Called and awaited before the entry is put: from now on it may exist. */
  pending(head: ChainHead): void;
  /** The entry exists. */
  confirmed(head: ChainHead): void;
}

export interface TenureOptions {
  readonly agent: SigningKey;
  readonly mark: HeadMark;
  /** Milliseconds since 1970; a parameter so that tests can bend the clock. */
  readonly now: () => number;
}

export interface BeginFields {
  readonly epoch: number;
  readonly keyRecordDigest: Uint8Array;
  /** Take over the unpublished segments of the tenure in force. */
  readonly adopt: boolean;
}

export interface PublishFields {
  readonly epoch: number;
  readonly births: readonly Birth[];
  readonly deaths: readonly Death[];
  readonly immutableUntilMs: number;
  /** The manifest is bound to its place in the chain, so it is sealed once that is known. */
  readonly sealManifest: (seq: number, tenure: number) => Uint8Array;
}

/** An entry by another writer took our place in the chain. */
type Appended = { readonly entry: ChainEntry } | { readonly conflict: true };

/** An entry failed before, so that nobody knows where the chain ends. */
export class TenureOver extends Error {
  readonly code = 'TENURE_OVER';
  override readonly name = 'TenureOver';
}

export class Tenure {
  readonly machineId: Uint8Array;
  readonly #options: TenureOptions;
  #repo: OpenRepository;
  #chain: { state: ChainState; head: ChainHead };
  #lastNumber = 0;
  /** Set while an entry is under way, and for good when that failed: whether it exists is unknown, and so is the state. */
  #isOver = false;

  private constructor(repo: OpenRepository, machineId: Uint8Array, options: TenureOptions, chain: Chain | null) {
    this.#repo = repo;
    this.machineId = machineId;
    this.#options = options;
    this.#chain = chain ?? { state: new ChainState(), head: { seq: 0, digest: noDigest } };
  }

  /**
   * Opens a tenure after `chain` (null: a machine without a chain), which is used up. Throws Fenced when somebody else was
   * quicker, and AgentNotTrusted when this agent may not write.
   */
  static async begin(
    repo: OpenRepository,
    machineId: Uint8Array,
    chain: Chain | null,
    fields: BeginFields,
    options: TenureOptions,
    signal: AbortSignal,
  ): Promise<Tenure> {
    const tenure = new Tenure(repo, machineId, options, chain);
    const { epoch, keyRecordDigest } = fields;
    const adopts = fields.adopt && chain !== null ? chain.state.tenure : null;
    await tenure.#appendOrRebase(() => ({ type: 'begin', adopts, epoch, keyRecordDigest }), noControl, signal);
    return tenure;
  }

  get repo(): OpenRepository {
    return this.#repo;
  }

  /** Seq of our begin entry. */
  get id(): number {
    return this.#chain.state.tenure;
  }

  get head(): ChainHead {
    return this.#chain.head;
  }

  get state(): ChainState {
    return this.#chain.state;
  }

  /** Place of the next segment. A number is never used twice, whatever becomes of it. */
  nextSegment(): SegmentId {
    this.#lastNumber++;
    return { tenure: this.id, number: this.#lastNumber };
  }

  /** Durable once resolved. Throws Fenced where the name holds other bytes. */
  async putSegment(id: SegmentId, bytes: Uint8Array, digest: Uint8Array, signal: AbortSignal): Promise<void> {
    await putOnce(this.repo.target, segmentName(this.machineId, id), bytes, digest, signal);
  }

  /**
   * Every segment of `births` is durable before this is called. Throws Fenced, and then nothing was published; after any
   * other error it may have been. Either way the tenure is over: open the chain again and begin another.
   */
  async publish(fields: PublishFields, signal: AbortSignal): Promise<ChainEntry> {
    const tenure = this.id;
    return await this.#appendOrRebase(
      (seq) => ({
        type: 'publish',
        epoch: fields.epoch,
        watermark: this.#lastNumber,
        immutableUntilMs: fields.immutableUntilMs,
        sealedManifest: fields.sealManifest(seq, tenure),
      }),
      fields,
      signal,
    );
  }

  /** Announces a new key epoch inside the tenure. */
  async rekey(epoch: number, keyRecordDigest: Uint8Array, signal: AbortSignal): Promise<ChainEntry> {
    return await this.#appendOrRebase(() => ({ type: 'rekey', epoch, keyRecordDigest }), noControl, signal);
  }

  /** Every object that the retained points and the next one need is locked until then: `lockReplica` did that before. */
  async lock(untilMs: number, signal: AbortSignal): Promise<ChainEntry> {
    return await this.#appendOrRebase(
      () => ({ type: 'lock', generation: this.state.lockGeneration + 1, untilMs }),
      noControl,
      signal,
    );
  }

  /** A writer that loses the race goes on after `prune` and `lock`, never after `begin`, `publish` or `rekey` (rule R4). */
  async #appendOrRebase(
    body: (seq: number) => EntryBody,
    control: { readonly births: readonly Birth[]; readonly deaths: readonly Death[] },
    signal: AbortSignal,
  ): Promise<ChainEntry> {
    if (this.#isOver) {
      throw new TenureOver(
        `machine ${toHex(this.machineId)}: an entry of tenure ${this.id} failed, so the tenure is over: begin another`,
      );
    }
    this.#isOver = true;
    const before = { tenure: this.id, epoch: this.state.epoch };
    for (let attempt = 0; attempt < rebaseAttemptsMax; attempt++) {
      const appended = await this.#append(body(this.#chain.head.seq + 1), control.births, control.deaths, signal);
      if ('entry' in appended) {
        this.#isOver = false;
        return appended.entry;
      }
      await this.#rebase(before, signal);
    }
    throw new Fenced(`machine ${toHex(this.machineId)}: lost ${rebaseAttemptsMax} races for the next chain entry`);
  }

  async #append(
    body: EntryBody,
    births: readonly Birth[],
    deaths: readonly Death[],
    signal: AbortSignal,
  ): Promise<Appended> {
    const { agent, mark, now } = this.#options;
    const place = { machineId: this.machineId, ...this.#chain };
    const entry = await writeEntry(
      this.repo,
      place,
      { body, births, deaths },
      { agent, timeMs: now(), announce: (next) => mark.pending(next) },
      signal,
    );
    if (entry === null) return { conflict: true };
    const head = { seq: entry.seq, digest: entry.digest };
    this.#chain = { state: this.#chain.state, head };
    mark.confirmed(head);
    return { entry };
  }

  async #rebase(before: { readonly tenure: number; readonly epoch: number }, signal: AbortSignal): Promise<void> {
    const ours = this.#chain.head.seq;
    // Whoever came before us may have written under a newer statement, and that may have revoked us.
    this.#repo = await refreshTrust(this.#repo, signal);
    const chain = await openChain(this.repo, this.machineId, signal);
    if (chain === null)
      throw new ReplicaNotFound(`machine ${toHex(this.machineId)}: its chain vanished from the store`);
    if (ours > 0) await checkKnownHead(this.repo, chain, this.#chain.head, signal);
    const foreign = chain.recent.find(
      ({ seq, body, isVoid }) => seq > ours && !isVoid && body.type !== 'prune' && body.type !== 'lock',
    );
    // After a long absence `recent` begins later than the entry in question, but the state tells of each kind.
    const published = (chain.state.newestPoint?.seq ?? 0) > ours;
    const rekeyed = chain.state.epoch !== before.epoch;
    const isOurs = chain.state.tenure === before.tenure && !published && !rekeyed;
    if (foreign !== undefined || !isOurs) {
      const who = foreign === undefined ? 'somebody' : `agent ${toHex(foreign.signerKeyId)}`;
      throw new Fenced(
        `machine ${toHex(this.machineId)}: ${who} wrote entry ${foreign?.seq ?? chain.head.seq}: another agent has taken this machine over. Nothing was published by this run`,
      );
    }
    this.#chain = { state: chain.state, head: chain.head };
  }
}
