import type { DataKey } from '../crypto/data-key.ts';
import { KeyRefused } from '../crypto/errors.ts';
import type { KeyContext, KeyProvider } from '../crypto/key-provider.ts';
import { keyIdOf } from '../crypto/signing.ts';
import { sha256 } from '../crypto/suite.ts';
import { ObjectNotFound } from '../storage-targets/errors.ts';
import { ChainBroken } from './chain.ts';
import { sameBytes, toHex } from './encoding.ts';
import { checkKeyRecordSigner, type KeyRecord, type MachineKeys, openKeyRecord, parseKeyRecord } from './key-record.ts';
import { keyRecordName, keyRecordPrefix } from './names.ts';
import type { OpenRepository } from './open-repository.ts';

/** The opened keys of one epoch. */
export interface EpochKeys {
  /** When the epoch's key record was made. */
  readonly createdMs: number;
  readonly context: KeyContext;
  readonly key: DataKey;
  readonly machineKeys: MachineKeys;
}

/** What the chain says of a machine's keys. */
export interface KeyedChain {
  readonly machineId: Uint8Array;
  /** Digest of revision 0 of each epoch's key record. */
  readonly state: { readonly epochs: ReadonlyMap<number, Uint8Array> };
}

/** Where a reader gets a machine's keys from, by epoch. */
export interface KeySource {
  epoch(epoch: number, signal: AbortSignal): Promise<EpochKeys>;
}

/**
 * A machine's data keys, unwrapped when first needed: one LIST, one GET and one unwrap per epoch.
 * Dispose it to zero them all.
 */
export class KeyRing implements KeySource, Disposable {
  readonly #repo: OpenRepository;
  readonly #machineId: Uint8Array;
  readonly #digests: ReadonlyMap<number, Uint8Array>;
  readonly #providers: readonly KeyProvider[];
  readonly #epochs = new Map<number, Promise<EpochKeys>>();
  readonly #records = new Map<number, KeyRecord>();
  readonly #opened: EpochKeys[] = [];

  /** `providers` are tried in this order: the KMS first, the recovery key last. */
  constructor(repo: OpenRepository, chain: KeyedChain, providers: readonly KeyProvider[]) {
    this.#repo = repo;
    this.#machineId = chain.machineId;
    this.#digests = chain.state.epochs;
    this.#providers = providers;
  }

  /** Takes over keys that were just generated; the ring disposes them. */
  add(keys: EpochKeys): void {
    this.#opened.push(keys);
    this.#epochs.set(keys.context.epoch, Promise.resolve(keys));
  }

  async epoch(epoch: number, signal: AbortSignal): Promise<EpochKeys> {
    const known = this.#epochs.get(epoch);
    if (known !== undefined) return await known;
    const opening = this.#open(epoch, signal);
    this.#epochs.set(epoch, opening);
    try {
      return await opening;
    } catch (error) {
      this.#epochs.delete(epoch);
      throw error;
    }
  }

  async #open(epoch: number, signal: AbortSignal): Promise<EpochKeys> {
    const record = await this.record(epoch, signal);
    const key = await unwrapKeyRecord(record, this.#providers, signal);
    const keys = { createdMs: record.createdMs, context: record.context, key, machineKeys: openKeyRecord(record, key) };
    this.#opened.push(keys);
    return keys;
  }

  /** The epoch's key record, read once: who wrapped the data key, and when. */
  async record(epoch: number, signal: AbortSignal): Promise<KeyRecord> {
    const known = this.#records.get(epoch);
    if (known !== undefined) return known;
    const digest = this.#digests.get(epoch);
    if (digest === undefined)
      throw new ChainBroken(`the chain of machine ${toHex(this.#machineId)} names no key record for epoch ${epoch}`);
    const record = await readKeyRecord(this.#repo, this.#machineId, epoch, digest, signal);
    this.#records.set(epoch, record);
    return record;
  }

  [Symbol.dispose](): void {
    for (const { key, machineKeys } of this.#opened) {
      key[Symbol.dispose]();
      machineKeys[Symbol.dispose]();
    }
    this.#epochs.clear();
  }
}

/** The key record that counts, with the highest revision: docs/format.md §5. */
export async function readKeyRecord(
  repo: OpenRepository,
  machineId: Uint8Array,
  epoch: number,
  firstDigest: Uint8Array,
  signal: AbortSignal,
): Promise<KeyRecord> {
  const context = { repositoryId: repo.repository.repositoryId, machineId, epoch };
  const revisions = await listRevisions(repo, context, signal);
  const first = await readRevision(repo, context, 0, signal);
  if (!sameBytes(sha256(first.bytes), firstDigest)) {
    throw new ChainBroken(
      `${keyRecordName(machineId, epoch, 0)} is not the key record that the chain names: it was replaced`,
    );
  }
  for (const revision of revisions.filter((candidate) => candidate > 0).sort((a, b) => b - a)) {
    const record = await readRevision(repo, context, revision, signal);
    if (counts(repo, first, record)) return record;
  }
  return first;
}

/** A later revision counts if an agent that is certified now signed it, and for the same data key. */
function counts(repo: OpenRepository, first: KeyRecord, record: KeyRecord): boolean {
  const agent = repo.trust.agents.find(({ key }) => sameBytes(keyIdOf(key), record.signerKeyId));
  if (agent === undefined || agent.revoked !== null || !sameBytes(first.commitment, record.commitment)) return false;
  checkKeyRecordSigner(record, agent.key);
  return true;
}

async function readRevision(
  repo: OpenRepository,
  context: KeyContext,
  revision: number,
  signal: AbortSignal,
): Promise<KeyRecord> {
  const name = keyRecordName(context.machineId, context.epoch, revision);
  try {
    return parseKeyRecord(context, revision, await repo.target.get(name, null, signal));
  } catch (cause) {
    if (!(cause instanceof ObjectNotFound)) throw cause;
    throw new ChainBroken(`${name} is missing: somebody removed it. Without it this key epoch can't be opened`, {
      cause,
    });
  }
}

async function listRevisions(
  repo: OpenRepository,
  context: KeyContext,
  signal: AbortSignal,
): Promise<readonly number[]> {
  const prefix = keyRecordPrefix(context.machineId, context.epoch);
  const revisions: number[] = [];
  for await (const { name } of repo.target.list(prefix, {}, signal)) {
    const digits = name.slice(prefix.length);
    if (/^\d{4}$/.test(digits)) revisions.push(Number(digits));
  }
  return revisions;
}

/** Tries every wrap that one of the providers made. Throws KeyRefused when none opens, the providers' other errors untouched. */
export async function unwrapKeyRecord(
  record: KeyRecord,
  providers: readonly KeyProvider[],
  signal: AbortSignal,
): Promise<DataKey> {
  const refusals: KeyRefused[] = [];
  for (const provider of providers) {
    for (const wrap of record.wraps.filter((candidate) => candidate.provider === provider.provider)) {
      try {
        return await provider.unwrap(wrap, record.context, signal);
      } catch (error) {
        if (!(error instanceof KeyRefused)) throw error;
        refusals.push(error);
      }
    }
  }
  const name = keyRecordName(record.context.machineId, record.context.epoch, record.revision);
  const why =
    refusals.map((refusal) => refusal.message).join('; ') ||
    `it has wraps for ${record.wraps.map((wrap) => wrap.provider).join(', ')} only`;
  throw new KeyRefused(`${name}: none of your keys opens this key record: ${why}`);
}
