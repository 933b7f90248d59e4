import { rootFingerprint } from '../../crypto/root-fingerprint.ts';
import { SigningKey } from '../../crypto/signing.ts';
import { sha256 } from '../../crypto/suite.ts';
import { type Chain, type ChainHead, openChain } from '../../replica/chain.ts';
import type { ChainEntry, EntryBody } from '../../replica/chain-entry.ts';
import type { Birth, Death } from '../../replica/control.ts';
import { repositoryName, trustName } from '../../replica/names.ts';
import { type OpenRepository, openRepository } from '../../replica/open-repository.ts';
import { encodeRepository } from '../../replica/repository.ts';
import { Tenure, type TenureOptions } from '../../replica/tenure.ts';
import { encodeTrust, type TrustStatement } from '../../replica/trust.ts';
import type { StorageTarget } from '../../storage-targets/storage-target.ts';
import { MemoryStore, openMemoryTarget } from '../fakes/memory-target.ts';
import { appendEntry } from './append-entry.ts';

/** A repository in memory with a root key and two agents, for tests that tell one story each. */

export const never = new AbortController().signal;
export const repositoryId = new Uint8Array(16).fill(0xa1);
export const machineId = new Uint8Array(16).fill(0xb2);
export const noKeyRecord = new Uint8Array(32);

export class SmallRepository {
  readonly store: MemoryStore;
  readonly root: SigningKey;
  readonly agent = SigningKey.generate();
  readonly otherAgent = SigningKey.generate();
  #trust: TrustStatement;
  #trustDigest = new Uint8Array(32);

  constructor(store: MemoryStore = new MemoryStore()) {
    this.store = store;
    this.root = SigningKey.generate();
    const descriptor = { repositoryId, createdMs: 1, firstRoot: this.root.publicKey };
    this.put(repositoryName, encodeRepository(descriptor, this.root));
    this.#trust = {
      repositoryId,
      n: 0,
      previous: new Uint8Array(32),
      createdMs: 1,
      root: this.root.publicKey,
      lineage: [],
      recoveryPublicKey: new Uint8Array(3),
      agents: [this.agent, this.otherAgent].map(({ publicKey }) => ({ key: publicKey, revoked: null })),
      retentionFloorDays: 0,
    };
    this.#putTrust(this.#trust, this.root);
  }

  get trust(): TrustStatement {
    return this.#trust;
  }

  put(name: string, bytes: Uint8Array): void {
    this.store.put(name, bytes, sha256(bytes), null);
  }

  /** Writes the next trust statement. */
  state(changes: Partial<TrustStatement>, root: SigningKey = this.root): void {
    this.#putTrust({ ...this.#trust, n: this.#trust.n + 1, previous: this.#trustDigest, ...changes }, root);
  }

  #putTrust(statement: TrustStatement, root: SigningKey): void {
    const bytes = encodeTrust(statement, root);
    this.put(trustName(statement.n), bytes);
    this.#trust = statement;
    this.#trustDigest = Uint8Array.from(sha256(bytes));
  }

  async open(target: StorageTarget = openMemoryTarget(this.store)): Promise<OpenRepository> {
    return await openRepository(target, rootFingerprint(this.root.publicKey), never);
  }

  /** Opens the repository and the chain, which must be there. */
  async chain(store: MemoryStore = this.store): Promise<{ readonly repo: OpenRepository; readonly chain: Chain }> {
    const repo = await this.open(openMemoryTarget(store));
    const chain = await openChain(repo, machineId, never);
    if (chain === null) throw new Error('the machine has no chain');
    return { repo, chain };
  }

  /** Opens everything anew and begins a tenure, as a process that starts. */
  async begin(agent: SigningKey = this.agent, store: MemoryStore = this.store): Promise<Tenure> {
    const repo = await this.open(openMemoryTarget(store));
    return await beginTenure(repo, await openChain(repo, machineId, never), agent);
  }

  /** Appends a `prune` or `lock` after the head. */
  async append(body: EntryBody, key: SigningKey = this.otherAgent): Promise<void> {
    const { repo, chain } = await this.chain();
    if (!(await appendEntry(repo, chain, body, key))) throw new Error('somebody was quicker');
  }
}

export async function beginTenure(
  repo: OpenRepository,
  chain: Chain | null,
  agent: SigningKey,
  mark: TenureOptions['mark'] = { pending: () => undefined, confirmed: () => undefined },
): Promise<Tenure> {
  const fields = { epoch: chain?.state.epoch ?? 1, keyRecordDigest: noKeyRecord, adopt: false };
  return await Tenure.begin(repo, machineId, chain, fields, { agent, mark, now: () => 1 }, never);
}

export async function publish(
  tenure: Tenure,
  births: readonly Birth[] = [],
  deaths: readonly Death[] = [],
): Promise<ChainEntry> {
  const sealManifest = (seq: number): Uint8Array => new TextEncoder().encode(`point ${seq}`);
  return await tenure.publish({ epoch: tenure.state.epoch, births, deaths, immutableUntilMs: 0, sealManifest }, never);
}

/** Begins a tenure and publishes so many points: so many entries and one. */
export async function publishMany(repository: SmallRepository, points: number): Promise<ChainHead> {
  const tenure = await repository.begin();
  for (let i = 0; i < points; i++) await publish(tenure);
  return tenure.head;
}
