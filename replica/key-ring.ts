import type { DataKey } from '../crypto/data-key.ts';
import { KeyRefused } from '../crypto/errors.ts';
import type { KeyContext, KeyProvider } from '../crypto/key-provider.ts';
import { ChainBroken } from './chain.ts';
import { toHex } from './encoding.ts';
import { type KeyRecord, type MachineKeys, openKeyRecord } from './key-record.ts';
import { keyRecordName } from './names.ts';
import type { OpenRepository } from './open-repository.ts';
import { readKeyRecords, salvageKeyRecords } from './read-key-records.ts';

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

/**
 * Key records that are taken although nothing vouches for them but an agent's signature; every segment checks its key again.
 * `later-revisions`: where the first one is damaged. `unnamed-epochs`: also of epochs that a damaged chain does not name.
 */
export type KeySalvage = 'nothing' | 'later-revisions' | 'unnamed-epochs';

/** Where a reader gets a machine's keys from, by epoch. */
export interface KeySource {
  /** False for an epoch that this machine can't have: no segment of ours names it. */
  mayHave(epoch: number): boolean;
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
  readonly #salvage: KeySalvage;
  readonly #epochs = new Map<number, Promise<EpochKeys>>();
  readonly #records = new Map<number, readonly KeyRecord[]>();
  readonly #opened: EpochKeys[] = [];

  /** `providers` are tried in this order: the KMS first, the recovery key last. */
  constructor(
    repo: OpenRepository,
    chain: KeyedChain,
    providers: readonly KeyProvider[],
    salvage: KeySalvage = 'nothing',
  ) {
    this.#repo = repo;
    this.#salvage = salvage;
    this.#machineId = chain.machineId;
    this.#digests = chain.state.epochs;
    this.#providers = providers;
  }

  /** Takes over keys that were just generated; the ring disposes them. */
  add(keys: EpochKeys): void {
    this.#opened.push(keys);
    this.#epochs.set(keys.context.epoch, Promise.resolve(keys));
  }

  mayHave(epoch: number): boolean {
    return this.#salvage === 'unnamed-epochs' || this.#digests.has(epoch) || this.#epochs.has(epoch);
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
    const { record, key } = await unwrapFirst(await this.#recordsOf(epoch, signal), this.#providers, signal);
    const keys = { createdMs: record.createdMs, context: record.context, key, machineKeys: openKeyRecord(record, key) };
    this.#opened.push(keys);
    return keys;
  }

  /** The epoch's key record that counts, read once: who wrapped the data key, and when. */
  async record(epoch: number, signal: AbortSignal): Promise<KeyRecord> {
    const [record] = await this.#recordsOf(epoch, signal);
    if (record === undefined) throw new Error(`no key record of epoch ${epoch}`);
    return record;
  }

  async #recordsOf(epoch: number, signal: AbortSignal): Promise<readonly KeyRecord[]> {
    const known = this.#records.get(epoch);
    if (known !== undefined) return known;
    const digest = this.#digests.get(epoch) ?? null;
    if (digest === null && this.#salvage !== 'unnamed-epochs')
      throw new ChainBroken(`the chain of machine ${toHex(this.#machineId)} names no key record for epoch ${epoch}`);
    const context = { repositoryId: this.#repo.repository.repositoryId, machineId: this.#machineId, epoch };
    const records =
      this.#salvage === 'nothing'
        ? await readKeyRecords(this.#repo, context, digest, signal)
        : await salvageKeyRecords(this.#repo, context, digest, signal);
    this.#records.set(epoch, records);
    return records;
  }

  [Symbol.dispose](): void {
    for (const { key, machineKeys } of this.#opened) {
      key[Symbol.dispose]();
      machineKeys[Symbol.dispose]();
    }
    this.#epochs.clear();
  }
}

/** The highest revision that one of the providers opens. Throws the last refusal when none opens. */
async function unwrapFirst(
  records: readonly KeyRecord[],
  providers: readonly KeyProvider[],
  signal: AbortSignal,
): Promise<{ readonly record: KeyRecord; readonly key: DataKey }> {
  let refusal: KeyRefused | null = null;
  for (const record of records) {
    try {
      return { record, key: await unwrapKeyRecord(record, providers, signal) };
    } catch (error) {
      if (!(error instanceof KeyRefused)) throw error;
      refusal = error;
    }
  }
  throw refusal ?? new KeyRefused('no key record to open');
}

/** Tries every wrap that one of the providers made. Throws KeyRefused when none opens, the providers' other errors untouched. */
async function unwrapKeyRecord(
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
