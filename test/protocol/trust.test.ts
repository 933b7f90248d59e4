import { describe, expect, it } from 'vitest';
import { rootFingerprint } from '../../crypto/root-fingerprint.ts';
import { SigningKey } from '../../crypto/signing.ts';
import { ChainBroken, type ChainHead, ReplicaRolledBack, readPoint, verifyWholeChain } from '../../replica/chain.ts';
import { chainEntryName, trustName } from '../../replica/names.ts';
import { openRepository } from '../../replica/open-repository.ts';
import { AgentNotTrusted, type AgentTrust, RootMismatch, replaceRoot, TrustBroken } from '../../replica/trust.ts';
import { openMemoryTarget } from '../fakes/memory-target.ts';
import {
  beginTenure,
  machineId,
  never,
  publish,
  publishMany,
  repositoryId,
  SmallRepository,
} from './small-repository.ts';

/** The statement's agents with the first agent revoked: its entries count up to `cutoff`, or not at all. */
function revokingAgent(repository: SmallRepository, cutoff: ChainHead | null): readonly AgentTrust[] {
  const revoked = cutoff === null ? [] : [{ machineId, lastSeq: cutoff.seq, digest: cutoff.digest }];
  return [
    { key: repository.agent.publicKey, revoked },
    { key: repository.otherAgent.publicKey, revoked: null },
  ];
}

describe('trust that was rolled back', () => {
  it('is noticed by every entry that was written under the newer statement', async () => {
    const repository = new SmallRepository();
    await publishMany(repository, 1);
    repository.state({ retentionFloorDays: 30 });
    await publishMany(repository, 1);
    repository.store.replace(trustName(1), null);
    await expect(repository.chain()).rejects.toThrow(ReplicaRolledBack);
  });

  it('is noticed when a statement in the middle is gone', async () => {
    const repository = new SmallRepository();
    repository.state({ retentionFloorDays: 30 });
    repository.state({ retentionFloorDays: 60 });
    repository.store.replace(trustName(1), null);
    await expect(repository.open()).rejects.toThrow(TrustBroken);
  });
});

describe('an agent that was revoked', () => {
  it('keeps its entries up to the cut-off; later ones take their place and say nothing', async () => {
    const repository = new SmallRepository();
    const cutoff = await publishMany(repository, 2);
    const stolen = await repository.begin();
    const before = await repository.chain();
    repository.state({ agents: revokingAgent(repository, cutoff) });
    await publish(stolen);
    const { repo, chain } = await repository.chain();
    expect(before.chain.state.tenure).toBe(4);
    expect([chain.head.seq, chain.state.tenure, [...chain.state.points.keys()]]).toEqual([5, 1, [2, 3]]);
    expect((await readPoint(repo, chain, 3, never)).isVoid).toBe(false);

    const next = await repository.begin(repository.otherAgent);
    await publish(next);
    const { repo: reopened, chain: whole } = await repository.chain();
    expect([whole.head.seq, whole.state.tenure, [...whole.state.points.keys()]]).toEqual([7, 6, [2, 3, 7]]);
    expect(await verifyWholeChain(reopened, whole, never)).toBe(7);
  });

  it('is read over summaries that it wrote beyond its cut-off', async () => {
    const repository = new SmallRepository();
    const cutoff = await publishMany(repository, 100);
    const stolen = await repository.begin();
    for (let i = 0; i < 150; i++) await publish(stolen);
    repository.state({ agents: revokingAgent(repository, cutoff) });
    const next = await repository.begin(repository.otherAgent);
    await publish(next);
    const { repo, chain } = await repository.chain();
    expect([chain.head.seq, chain.state.tenure, chain.state.points.size]).toEqual([254, 253, 101]);
    expect(await verifyWholeChain(repo, chain, never)).toBe(254);
  });

  it('opens no tenure, and goes on with none once it has read the new statement', async () => {
    const repository = new SmallRepository();
    const cutoff = await publishMany(repository, 2);
    repository.state({ agents: revokingAgent(repository, cutoff) });
    const before = repository.store.names.length;
    await expect(repository.begin()).rejects.toThrow(AgentNotTrusted);
    expect(repository.store.names.length).toBe(before);
  });

  it('can not put another entry in the place of its last one', async () => {
    const repository = new SmallRepository();
    await publishMany(repository, 1);
    const copy = repository.store.copy();
    const cutoff = await publishMany(repository, 1);
    const elsewhere = await repository.begin(repository.agent, copy);
    await publish(elsewhere);
    repository.state({ agents: revokingAgent(repository, cutoff) });
    for (const seq of [3, 4]) {
      repository.store.replace(chainEntryName(machineId, seq), copy.bytesOf(chainEntryName(machineId, seq)));
    }
    await expect(repository.chain()).rejects.toThrow(ChainBroken);
  });

  it('counts for nothing on a machine that its revocation does not name', async () => {
    const repository = new SmallRepository();
    await publishMany(repository, 2);
    repository.state({ agents: revokingAgent(repository, null) });
    const { chain } = await repository.chain();
    expect([chain.state.tenure, chain.state.points.size]).toEqual([0, 0]);
  });

  it('is at least known: an entry by a key that the root never certified is refused', async () => {
    const repository = new SmallRepository();
    await publishMany(repository, 1);
    const stranger = SigningKey.generate();
    const { repo, chain } = await repository.chain();
    const agents = [{ key: stranger.publicKey, revoked: null }];
    await beginTenure({ ...repo, trust: { ...repo.trust, agents } }, chain, stranger);
    await expect(repository.chain()).rejects.toThrow(AgentNotTrusted);
  });
});

describe('a root key that was replaced', () => {
  async function replaced(): Promise<{ readonly repository: SmallRepository; readonly newRoot: SigningKey }> {
    const repository = new SmallRepository();
    await publishMany(repository, 1);
    const newRoot = SigningKey.generate();
    const lineage = [replaceRoot(repositoryId, repository.root, newRoot.publicKey)];
    repository.state({ root: newRoot.publicKey, lineage }, newRoot);
    return { repository, newRoot };
  }

  it('hands over: what the old one certified stays, and the new one certifies on', async () => {
    const { repository, newRoot } = await replaced();
    const added = SigningKey.generate();
    const agents = [...repository.trust.agents, { key: added.publicKey, revoked: null }];
    repository.state({ agents }, newRoot);
    await publishMany(repository, 1);
    await publish(await repository.begin(added));
    const { repo, chain } = await repository.chain();
    expect(await verifyWholeChain(repo, chain, never)).toBe(6);
  });

  it('opens under the old pin, which is then said to be replaced, under the new one, and under no other', async () => {
    const { repository, newRoot } = await replaced();
    const target = openMemoryTarget(repository.store);
    const open = (key: SigningKey) => openRepository(target, rootFingerprint(key.publicKey), never);
    expect((await open(repository.root)).pinnedRootReplaced).toBe(true);
    expect((await open(newRoot)).pinnedRootReplaced).toBe(false);
    await expect(open(SigningKey.generate())).rejects.toThrow(RootMismatch);
  });

  it('can not state anything any more', async () => {
    const { repository } = await replaced();
    repository.state({ root: repository.root.publicKey, lineage: [] }, repository.root);
    await expect(repository.open()).rejects.toThrow(TrustBroken);
  });

  it('can not name another successor', async () => {
    const { repository } = await replaced();
    const evil = SigningKey.generate();
    const lineage = [replaceRoot(repositoryId, repository.root, evil.publicKey)];
    repository.state({ root: evil.publicKey, lineage }, evil);
    await expect(repository.open()).rejects.toThrow(TrustBroken);
  });
});
