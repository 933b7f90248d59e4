import type { DataKey } from '../crypto/data-key.ts';
import { KeyRefused } from '../crypto/errors.ts';
import type { KeyContext, KeyProvider } from '../crypto/key-provider.ts';
import { keyIdOf } from '../crypto/signing.ts';
import { ChainBroken } from './chain.ts';
import { sameBytes, toHex } from './encoding.ts';
import { checkKeyRecordSigner, type KeyRecord, type MachineKeys, openKeyRecord, parseKeyRecord } from './key-record.ts';
import { keyRecordName, keyRecordPrefix } from './names.ts';
import type { OpenRepository } from './open-repository.ts';
import { AgentNotTrusted } from './trust.ts';

/** The opened keys of one epoch. */
export interface EpochKeys {
  readonly context: KeyContext;
  readonly key: DataKey;
  readonly machineKeys: MachineKeys;
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
  readonly #providers: readonly KeyProvider[];
  readonly #epochs = new Map<number, Promise<EpochKeys>>();
  readonly #opened: EpochKeys[] = [];

  /** `providers` are tried in this order: the KMS first, the recovery key last. */
  constructor(repo: OpenRepository, machineId: Uint8Array, providers: readonly KeyProvider[]) {
    this.#repo = repo;
    this.#machineId = machineId;
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
    const record = await readKeyRecord(this.#repo, this.#machineId, epoch, signal);
    const key = await unwrapKeyRecord(record, this.#providers, signal);
    const keys = { context: record.context, key, machineKeys: openKeyRecord(record, key) };
    this.#opened.push(keys);
    return keys;
  }

  [Symbol.dispose](): void {
    for (const { key, machineKeys } of this.#opened) {
      key[Symbol.dispose]();
      machineKeys[Symbol.dispose]();
    }
    this.#epochs.clear();
  }
}

/** The newest revision of an epoch's key record, with its signer checked. */
export async function readKeyRecord(
  repo: OpenRepository,
  machineId: Uint8Array,
  epoch: number,
  signal: AbortSignal,
): Promise<KeyRecord> {
  const context = { repositoryId: repo.repository.repositoryId, machineId, epoch };
  const revision = await newestRevision(repo, context, signal);
  const name = keyRecordName(machineId, epoch, revision);
  const record = parseKeyRecord(context, revision, await repo.target.get(name, null, signal));
  const agent = repo.trust.agents.find(({ key }) => sameBytes(keyIdOf(key), record.signerKeyId));
  if (agent === undefined) {
    throw new AgentNotTrusted(
      `${name} is signed by agent ${toHex(record.signerKeyId)}, which the root key never certified`,
    );
  }
  checkKeyRecordSigner(record, agent.key);
  return record;
}

async function newestRevision(repo: OpenRepository, context: KeyContext, signal: AbortSignal): Promise<number> {
  const prefix = keyRecordPrefix(context.machineId, context.epoch);
  let newest: number | null = null;
  for await (const { name } of repo.target.list(prefix, {}, signal)) {
    const digits = name.slice(prefix.length);
    if (/^\d{4}$/.test(digits)) newest = Number(digits);
  }
  if (newest !== null) return newest;
  throw new ChainBroken(`${prefix} holds no key record: somebody removed it. Without it this epoch can't be opened`);
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
