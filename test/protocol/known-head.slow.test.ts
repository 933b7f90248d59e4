import { describe, expect, it } from 'vitest';
import { SigningKey } from '../../crypto/signing.ts';
import {
  ChainBroken,
  type ChainHead,
  checkKnownHead,
  openChain,
  ReplicaForked,
  ReplicaRolledBack,
  readPoint,
  verifyWholeChain,
} from '../../replica/chain.ts';
import { chainEntryName, trustName } from '../../replica/names.ts';
import { Fenced } from '../../replica/put-once.ts';
import { TenureOver } from '../../replica/tenure.ts';
import { AgentNotTrusted, encodeTrust, TrustBroken } from '../../replica/trust.ts';
import { newTargetMetrics, withMetrics } from '../../storage-targets/with-metrics.ts';
import { type MemoryGate, openMemoryTarget } from '../fakes/memory-target.ts';
import {
  beginTenure,
  machineId,
  never,
  noKeyRecord,
  publish,
  publishMany,
  SmallRepository,
} from './small-repository.ts';

describe('a bucket that shows another past than the one that is known', () => {
  it('is taken for rolled back when its newest entry is older', async () => {
    const repository = new SmallRepository();
    await publishMany(repository, 3);
    const old = repository.store.copy();
    const known = await publishMany(repository, 1);
    const { repo, chain } = await repository.chain(old);
    await expect(checkKnownHead(repo, chain, known, never)).rejects.toThrow(ReplicaRolledBack);
  });

  it('is taken for rolled back when the newest entries were removed, and passes where nobody knows better', async () => {
    const repository = new SmallRepository();
    const known = await publishMany(repository, 70);
    for (const seq of [71, 70, 69]) repository.store.replace(chainEntryName(machineId, seq), null);
    const { repo, chain } = await repository.chain();
    await expect(checkKnownHead(repo, chain, known, never)).rejects.toThrow(ReplicaRolledBack);
    expect(await verifyWholeChain(repo, chain, never)).toBe(68);
  });

  it('is taken for a fork when a copy of it went its own way', async () => {
    const repository = new SmallRepository();
    await publishMany(repository, 3);
    const copy = repository.store.copy();
    const here = await publishMany(repository, 2);
    await publish(await repository.begin(repository.otherAgent, copy));
    await publish(await repository.begin(repository.otherAgent, copy));
    const { repo, chain } = await repository.chain(copy);
    await expect(checkKnownHead(repo, chain, here, never)).rejects.toThrow(ReplicaForked);
  });

  it('is taken for a fork though the known entry lies before the newest summary; one GET finds out', async () => {
    const repository = new SmallRepository();
    await publishMany(repository, 10);
    const copy = repository.store.copy();
    const here = await publishMany(repository, 1);
    const there = await repository.begin(repository.otherAgent, copy);
    for (let i = 0; i < 80; i++) await publish(there);
    const metrics = newTargetMetrics();
    const repo = await repository.open(withMetrics(openMemoryTarget(copy), metrics));
    const chain = await openChain(repo, machineId, never);
    const before = metrics.get.requests;
    await expect(chain && checkKnownHead(repo, chain, here, never)).rejects.toThrow(ReplicaForked);
    expect(metrics.get.requests - before).toBe(1);
  });

  it('passes when it only goes further', async () => {
    const repository = new SmallRepository();
    const heads: ChainHead[] = [];
    for (let i = 0; i < 5; i++) heads.push(await publishMany(repository, 30));
    const { repo, chain } = await repository.chain();
    for (const head of heads) await expect(checkKnownHead(repo, chain, head, never)).resolves.toBeUndefined();
  });
});

describe('a chain that was altered', () => {
  it('is broken where an entry is missing between the newest summary and the head', async () => {
    const repository = new SmallRepository();
    await publishMany(repository, 70);
    repository.store.replace(chainEntryName(machineId, 68), null);
    await expect(repository.chain()).rejects.toThrow(ChainBroken);
  });

  it('is broken where an agent’s key signed another entry in the place of one', async () => {
    const repository = new SmallRepository();
    await publishMany(repository, 4);
    const copy = repository.store.copy();
    copy.replace(chainEntryName(machineId, 5), null);
    copy.replace(chainEntryName(machineId, 4), null);
    await publish(await repository.begin(repository.agent, copy));
    const forged = copy.bytesOf(chainEntryName(machineId, 4));
    repository.store.replace(chainEntryName(machineId, 4), forged);
    await expect(repository.chain()).rejects.toThrow(ChainBroken);
  });

  it('is broken where an old point is another than its summary says, for who reads it and who walks it', async () => {
    const repository = new SmallRepository();
    await publishMany(repository, 70);
    const copy = repository.store.copy();
    for (let seq = 71; seq >= 10; seq--) copy.replace(chainEntryName(machineId, seq), null);
    await publishFrom(repository, copy);
    repository.store.replace(chainEntryName(machineId, 11), copy.bytesOf(chainEntryName(machineId, 11)));
    const { repo, chain } = await repository.chain();
    await expect(readPoint(repo, chain, 11, never)).rejects.toThrow(ChainBroken);
    await expect(verifyWholeChain(repo, chain, never)).rejects.toThrow(ChainBroken);
  });

  async function publishFrom(repository: SmallRepository, store: SmallRepository['store']): Promise<void> {
    const tenure = await repository.begin(repository.agent, store);
    for (let i = 0; i < 2; i++) await publish(tenure);
  }
});

describe('a tenure', () => {
  it('marks its head before the entry is put, and again when it exists', async () => {
    const repository = new SmallRepository();
    const story: string[] = [];
    const gate: MemoryGate = async ({ kind, name }) => {
      if (kind === 'put' && name.includes('/chain/')) story.push('put');
      return { kind: 'done' };
    };
    const mark = {
      pending: ({ seq }: ChainHead) => story.push(`pending ${seq}`),
      confirmed: ({ seq }: ChainHead) => story.push(`confirmed ${seq}`),
    };
    const repo = await repository.open(openMemoryTarget(repository.store, gate));
    const tenure = await beginTenure(repo, null, repository.agent, mark);
    await publish(tenure);
    expect(story).toEqual(['pending 1', 'put', 'confirmed 1', 'pending 2', 'put', 'confirmed 2']);
  });

  it('begins after a prune that came between reading the chain and its begin', async () => {
    const repository = new SmallRepository();
    await publishMany(repository, 3);
    const { repo, chain } = await repository.chain();
    await repository.append({ type: 'prune', points: [2, 3] });
    const tenure = await beginTenure(repo, chain, repository.agent);
    expect([tenure.id, [...tenure.state.points.keys()]]).toEqual([6, [4]]);
    await publish(tenure);
    const { repo: reopened, chain: whole } = await repository.chain();
    expect(await verifyWholeChain(reopened, whole, never)).toBe(7);
  });

  it('does not begin after somebody else’s begin, also not when that has gone out of sight', async () => {
    for (const points of [0, 150]) {
      const repository = new SmallRepository();
      await publishMany(repository, 3);
      const { repo, chain } = await repository.chain();
      const other = await repository.begin(repository.otherAgent);
      for (let i = 0; i < points; i++) await publish(other);
      await expect(beginTenure(repo, chain, repository.agent)).rejects.toThrow(Fenced);
    }
  });

  it('does not begin after a rekey either, though only locks are in sight', async () => {
    const repository = new SmallRepository();
    const owner = await repository.begin();
    await publish(owner);
    const { repo, chain } = await repository.chain();
    await owner.rekey(2, noKeyRecord, never);
    for (let i = 1; i <= 70; i++) await repository.append({ type: 'lock', generation: i, untilMs: i });
    await expect(beginTenure(repo, chain, repository.otherAgent)).rejects.toThrow(Fenced);
  });

  it('goes on after eighty locks, and is fenced by a begin that lies before them', async () => {
    const repository = new SmallRepository();
    const tenure = await repository.begin();
    await publish(tenure);
    for (let i = 1; i <= 80; i++) await repository.append({ type: 'lock', generation: i, untilMs: i });
    expect((await publish(tenure)).seq).toBe(83);
    await repository.begin(repository.otherAgent);
    for (let i = 81; i <= 160; i++) await repository.append({ type: 'lock', generation: i, untilMs: i });
    await expect(publish(tenure)).rejects.toThrow(Fenced);
    await expect(publish(tenure)).rejects.toThrow(TenureOver);
  });

  it('stops when the store was put back under it and another went on', async () => {
    const repository = new SmallRepository();
    const tenure = await repository.begin();
    await publish(tenure);
    await publish(tenure);
    for (const seq of [3, 2]) repository.store.replace(chainEntryName(machineId, seq), null);
    for (let i = 1; i <= 4; i++) await repository.append({ type: 'lock', generation: i, untilMs: i });
    await expect(publish(tenure)).rejects.toThrow(ReplicaForked);
  });

  it('is over when an entry got no answer, and the next one tells whether it exists', async () => {
    for (const kind of ['lost', 'unanswered'] as const) {
      const repository = new SmallRepository();
      let away = false;
      const gate: MemoryGate = async (operation) => ({ kind: away && operation.kind === 'put' ? kind : 'done' });
      const pending: ChainHead[] = [];
      const mark = { pending: (head: ChainHead) => pending.push(head), confirmed: () => undefined };
      const repo = await repository.open(openMemoryTarget(repository.store, gate));
      const tenure = await beginTenure(repo, null, repository.agent, mark);
      await publish(tenure);
      away = true;
      await expect(publish(tenure)).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE' });
      away = false;
      await expect(publish(tenure)).rejects.toThrow(TenureOver);
      const { chain } = await repository.chain();
      const last = pending.at(-1);
      expect([last?.seq, chain.head.seq]).toEqual([3, kind === 'lost' ? 2 : 3]);
      if (kind === 'unanswered') expect(chain.head.digest).toEqual(last?.digest);
    }
  });

  it('goes on after an entry that was written under a newer trust statement', async () => {
    const repository = new SmallRepository();
    const tenure = await repository.begin();
    repository.state({ retentionFloorDays: 30 });
    await repository.append({ type: 'lock', generation: 1, untilMs: 1 });
    const entry = await publish(tenure);
    expect([entry.seq, entry.trust]).toEqual([3, 1]);
  });

  it('ends when its agent turns out to be revoked', async () => {
    const repository = new SmallRepository();
    const tenure = await repository.begin();
    const cutoff = { machineId, lastSeq: tenure.head.seq, digest: tenure.head.digest };
    const [own, other] = [repository.agent, repository.otherAgent].map(({ publicKey }) => ({
      key: publicKey,
      revoked: null,
    }));
    repository.state({ agents: own && other ? [{ ...own, revoked: [cutoff] }, other] : [] });
    await repository.append({ type: 'lock', generation: 1, untilMs: 1 });
    await expect(publish(tenure)).rejects.toThrow(AgentNotTrusted);
    expect((await repository.chain()).chain.head.seq).toBe(2);
  });

  it('stops when the trust that it began under was replaced, be it by the root key itself', async () => {
    const repository = new SmallRepository();
    const tenure = await repository.begin();
    await repository.append({ type: 'lock', generation: 1, untilMs: 1 });
    const other = encodeTrust({ ...repository.trust, retentionFloorDays: 7 }, repository.root);
    repository.store.replace(trustName(0), other);
    await expect(publish(tenure)).rejects.toThrow(TrustBroken);
  });

  it('is not opened by an agent that the root key has not certified, and leaves no entry behind', async () => {
    const repository = new SmallRepository();
    await publishMany(repository, 1);
    const before = repository.store.names;
    await expect(repository.begin(SigningKey.generate())).rejects.toThrow(AgentNotTrusted);
    expect(repository.store.names).toEqual(before);
  });

  it('puts no entry whose births are out of order: no reader would take it', async () => {
    const repository = new SmallRepository();
    const tenure = await repository.begin();
    const births = [2, 1].map((number) => ({
      tenure: tenure.id,
      number,
      size: 9,
      units: 1,
      sha256: new Uint8Array(32).fill(number),
    }));
    for (const _ of births) tenure.nextSegment();
    await expect(publish(tenure, births)).rejects.toMatchObject({ code: 'FORMAT_INVALID' });
    expect((await repository.chain()).chain.head.seq).toBe(1);
  });
});

describe('two hosts with one key and one mark', () => {
  it('publish once: the other is fenced', async () => {
    const repository = new SmallRepository();
    const mark = await publishMany(repository, 2);
    const host = await repository.chain();
    const clone = await repository.chain();
    for (const { repo, chain } of [host, clone]) await checkKnownHead(repo, chain, mark, never);
    const tenure = await beginTenure(host.repo, host.chain, repository.agent);
    await expect(beginTenure(clone.repo, clone.chain, repository.agent)).rejects.toThrow(Fenced);
    await publish(tenure);
    expect((await repository.chain()).chain.head.seq).toBe(5);
  });
});
