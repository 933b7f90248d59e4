import { createHash, randomBytes } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { rootFingerprint } from '../../crypto/root-fingerprint.ts';
import { SigningKey } from '../../crypto/signing.ts';
import { openChain } from '../../replica/chain.ts';
import { encodeKeyRecord } from '../../replica/key-record.ts';
import { KeyRing } from '../../replica/key-ring.ts';
import { chainEntryName, keyRecordName, repositoryName, trustName } from '../../replica/names.ts';
import { openRepository } from '../../replica/open-repository.ts';
import { OpenReplica } from '../../restore/open-point.ts';
import { verifyReplica } from '../../restore/verify/verify-replica.ts';
import { MemoryStore, openMemoryTarget } from '../fakes/memory-target.ts';
import { ModelMachine } from '../fakes/model-machine.ts';
import { addTrust } from '../fixtures/change-trust.ts';
import { ReplicaRig } from '../rig/replica-rig.ts';
import { RigBucket } from '../rig/rig-bucket.ts';

const block = 65_536;
const signal = new AbortController().signal;

/** Entries 1, 3, 5 … begin, 2, 4, 6 … publish. Entry 64 carries a summary. */
let rig: ReplicaRig;
const pointCount = 33;
const allPoints = Array.from({ length: pointCount }, (_, i) => 2 * (i + 1));
const truth = new Map<number, string>();

beforeAll(async () => {
  rig = await ReplicaRig.create();
  const machine = new ModelMachine();
  const disk = machine.addDisk('system', 20 * block);
  for (const expected of allPoints) {
    disk.write((expected % 20) * block, randomBytes(block));
    const { point } = await rig.protect(machine);
    expect(point).toBe(expected);
    truth.set(point, hash(disk.content.bytes()));
  }
}, 60_000);

afterAll(async () => {
  await rig[Symbol.asyncDispose]();
});

describe('a chain entry', () => {
  const entry = (seq: number): string => chainEntryName(rig.machineId, seq);

  it('that the summary names as a point is lost with it, and the others restore', async () => {
    await using copy = await RigBucket.copyOf(rig);
    copy.flip(entry(10), 200);
    const { findings, hurt, doubtful, whole } = await copy.verify('full');
    expect(findings).toMatchObject([{ object: entry(10), points: [10], certain: true, kind: 'damaged' }]);
    expect([hurt, doubtful]).toEqual([[10], []]);
    expect(whole).toEqual(allPoints.filter((point) => point !== 10));
    await restoresAll(copy, [2, 8, 12, 66]);
    await expect(copy.restore(10)).rejects.toMatchObject({ code: 'REPLICA_NOT_FOUND' });
  });

  it('that began a tenure long ago hurts nothing, and only a walk over the whole chain misses it', async () => {
    await using copy = await RigBucket.copyOf(rig);
    copy.remove(entry(9));
    expect(await copy.verify('present')).toMatchObject({ findings: [], whole: allPoints });
    const { findings, hurt, doubtful } = await copy.verify('present', { chain: true });
    expect(findings).toMatchObject([{ code: 'CHAIN_BROKEN', points: [] }]);
    expect(findings[0]?.what).toContain(entry(9));
    expect([hurt, doubtful]).toEqual([[], []]);
  });

  it('after the summary is gone with the point that it may have published', async () => {
    await using copy = await RigBucket.copyOf(rig);
    copy.truncate(entry(66), 100);
    const { findings, doubtful, whole, repairable } = await copy.verify('full');
    expect(findings).toMatchObject([{ object: entry(66), code: 'FORMAT_INVALID', points: [66], certain: false }]);
    expect([doubtful, repairable]).toEqual([[66], []]);
    expect(whole).toEqual(allPoints.slice(0, -1));
    await restoresAll(copy, [64]);
  });

  it('before the newest one leaves nothing to vouch for it, which is said, and it restores', async () => {
    await using copy = await RigBucket.copyOf(rig);
    copy.flip(entry(65), 60);
    const { findings, hurt, whole } = await copy.verify('full');
    expect(findings.map(({ object }) => object).sort()).toEqual([entry(65), entry(66)].sort());
    expect(findings.find(({ object }) => object === entry(66))?.what).toContain('nothing vouches');
    expect(findings.every(({ points }) => points.length === 0)).toBe(true);
    expect([hurt, whole]).toEqual([[], allPoints]);
    await restoresAll(copy, [66]);
  });

  it('with the summary takes its own point along; the entries before tell the others', async () => {
    await using copy = await RigBucket.copyOf(rig);
    copy.flip(entry(64), 100);
    const { findings, whole, doubtful } = await copy.verify('full', { keyless: false });
    expect(findings).toMatchObject([{ object: entry(64), points: [64], certain: false }]);
    expect([doubtful, whole]).toEqual([[64], allPoints.filter((point) => point !== 64)]);
    await restoresAll(copy, [2, 62, 66]);
  });

  it('that is damaged keeps a writer from going on, and a reader from opening without salvage', async () => {
    await using copy = await RigBucket.copyOf(rig);
    copy.flip(entry(65), 60);
    const repo = await openRepository(copy.target, rootFingerprint(rig.root.publicKey), signal);
    await expect(OpenReplica.open(repo, rig.machineId, [rig.provider], signal)).rejects.toMatchObject({
      code: expect.stringMatching(/SIGNATURE_INVALID|CHAIN_BROKEN/),
    });
    const machine = new ModelMachine();
    machine.addDisk('system', 20 * block);
    await expect(rig.protect(machine, { target: copy.target })).rejects.toMatchObject({
      code: expect.stringMatching(/SIGNATURE_INVALID|CHAIN_BROKEN/),
    });
  });

  it('of another chain, signed by the same agent, has no place in this one', async () => {
    await using copy = await RigBucket.copyOf(rig);
    await using fork = await RigBucket.copyOf(rig);
    for (const seq of [65, 66]) fork.remove(entry(seq));
    const machine = new ModelMachine();
    machine.addDisk('system', 20 * block);
    const other = { target: fork.target, stateFolder: `${rig.folder}/fork-state`, takeOver: true };
    expect((await rig.protect(machine, other)).point).toBe(66);
    copy.rewrite(entry(66), () => fork.bytes(entry(66)));
    const { findings, whole } = await copy.verify('full');
    expect(findings).toMatchObject([{ object: entry(66), code: 'CHAIN_BROKEN' }]);
    expect(findings[0]?.what).toContain('it was replaced');
    expect(whole).toEqual(allPoints.slice(0, -1));
  });
});

describe('a key record', () => {
  const name = (revision = 0): string => keyRecordName(rig.machineId, 1, revision);

  it('that is damaged may hurt every point, and does', async () => {
    for (const damage of ['flip', 'remove'] as const) {
      await using copy = await RigBucket.copyOf(rig);
      if (damage === 'flip') copy.flip(name(), 300);
      else copy.remove(name());
      for (const level of ['present', 'checksum', 'ciphertext', 'full'] as const) {
        const { findings, whole, hurt, repairable } = await copy.verify(level, { keyless: level !== 'full' });
        expect(findings.length).toBeGreaterThan(0);
        expect(findings.every(({ object, code }) => object === name() && code === 'CHAIN_BROKEN')).toBe(true);
        expect([whole, hurt]).toEqual([[], level === 'full' ? allPoints : []]);
        expect(repairable).toEqual([]);
      }
    }
  });

  it('has a later revision that is checked, too, and does not count once it is damaged', async () => {
    await using copy = await RigBucket.copyOf(rig);
    await writeRevision(copy, 1);
    const all = await copy.verify('full');
    expect(all).toMatchObject({ findings: [], counts: { keyRecords: 2 } });
    copy.flip(name(1), -3);
    const { findings, whole } = await copy.verify('full');
    expect(findings).toMatchObject([{ object: name(1), code: 'SIGNATURE_INVALID', points: [], certain: true }]);
    expect(whole).toEqual(allPoints);
    const repo = await openRepository(copy.target, rootFingerprint(rig.root.publicKey), signal);
    using replica = await OpenReplica.open(repo, rig.machineId, [rig.provider], signal);
    expect((await replica.openPoint(66, signal)).manifest.machineName).toBe('machine');
  });

  it('whose first revision is lost opens by a later one, for reading', async () => {
    await using copy = await RigBucket.copyOf(rig);
    await writeRevision(copy, 1);
    copy.remove(name());
    const { findings, whole } = await copy.verify('full');
    expect(findings).toMatchObject([{ object: name(), code: 'CHAIN_BROKEN', points: [], certain: true }]);
    expect(whole).toEqual(allPoints);
    await restoresAll(copy, [2, 66]);
  });

  it('is missed where a later revision shows that there was one', async () => {
    await using copy = await RigBucket.copyOf(rig);
    await writeRevision(copy, 2);
    const { findings, whole } = await copy.verify('present', { keyless: true });
    expect(findings).toMatchObject([{ object: name(1), points: [] }]);
    expect(whole).toEqual(allPoints);
  });

  async function writeRevision(copy: RigBucket, revision: number): Promise<void> {
    const repo = await openRepository(copy.target, rootFingerprint(rig.root.publicKey), signal);
    const chain = await openChain(repo, rig.machineId, signal);
    if (chain === null) throw new Error('no chain');
    using ring = new KeyRing(repo, chain, [rig.provider]);
    const { context, key, machineKeys } = await ring.epoch(1, signal);
    const { wraps } = await ring.record(1, signal);
    const bytes = encodeKeyRecord({ context, revision, createdMs: 1, wraps }, key, machineKeys, rig.agent);
    await copy.target.putIfAbsent(name(revision), bytes, { sha256: sha256(bytes) }, signal);
  }
});

describe('trust', () => {
  it('that is damaged in its newest statement is read from the one before', async () => {
    await using copy = await RigBucket.copyOf(rig);
    await certifyOneMore(copy);
    copy.flip(trustName(1), -1);
    const { findings, whole } = await copy.verify('full');
    expect(findings).toMatchObject([{ object: trustName(1), code: 'SIGNATURE_INVALID', points: [] }]);
    expect(whole).toEqual(allPoints);
    await restoresAll(copy, [66]);
  });

  it('that is missing in an older statement, with the descriptor, stands by what the pinned root signed last', async () => {
    await using copy = await RigBucket.copyOf(rig);
    await certifyOneMore(copy);
    copy.remove(trustName(0));
    copy.remove(repositoryName);
    const { findings, whole } = await copy.verify('ciphertext', { keyless: true });
    expect(findings.map(({ object }) => object).sort()).toEqual([repositoryName, trustName(0)]);
    expect(whole).toEqual(allPoints);
    await restoresAll(copy, [66]);
  });

  it('of which nothing is left opens nothing', async () => {
    await using copy = await RigBucket.copyOf(rig);
    copy.flip(trustName(0), 40);
    await expect(copy.verify('present')).rejects.toMatchObject({ code: expect.any(String) });
  });

  async function certifyOneMore(copy: RigBucket): Promise<void> {
    const repo = await openRepository(copy.target, rootFingerprint(rig.root.publicKey), signal);
    const another = { key: SigningKey.generate().publicKey, revoked: null };
    await addTrust(repo, rig.root, { agents: [...repo.trust.agents, another] });
  }
});

describe('a control object', () => {
  it('that is missing or altered is named, and no point needs it to be restored', { timeout: 90_000 }, async () => {
    const store = new MemoryStore();
    await using large = await ReplicaRig.create(openMemoryTarget(store));
    const machine = new ModelMachine();
    const disk = machine.addDisk('system', 3400 * block);
    // Blocks apart from each other, each a record and a segment of its own: many births make large control data.
    for (let i = 0; i < 1700; i++) disk.write(2 * i * block, new Uint8Array(block).fill(1 + (i % 255)));
    const { point } = await large.protect(machine, { segmentBytes: 1 });
    const [name] = store.names.filter((candidate) => candidate.includes('/control/'));
    if (name === undefined) throw new Error('the control data was small enough to stay inline');
    const whole = store.bytesOf(name) ?? new Uint8Array();
    for (const damaged of [null, whole.slice(0, -1), Uint8Array.from(whole).fill(7, 100, 101)]) {
      store.replace(name, damaged);
      const repo = await openRepository(openMemoryTarget(store), rootFingerprint(large.root.publicKey), signal);
      using replica = await OpenReplica.open(repo, large.machineId, [large.provider], signal, { salvage: true });
      const options = { points: null, chain: false, workers: large.workers.restore, inFlightMax: 4 };
      const report = await verifyReplica(replica, { ...options, level: 'full' }, signal);
      expect(report.findings).toMatchObject([
        { object: name, code: damaged === null ? 'OBJECT_NOT_FOUND' : 'CONTROL_TAMPERED', points: [] },
      ]);
      expect(report).toMatchObject({ whole: [point], counts: { blocks: 1700 } });
    }
  });
});

async function restoresAll(copy: RigBucket, points: readonly number[]): Promise<void> {
  for (const point of points)
    expect(hash((await copy.restore(point)).get('system') ?? new Uint8Array())).toBe(truth.get(point));
}

function sha256(bytes: Uint8Array): Uint8Array {
  return createHash('sha256').update(bytes).digest();
}

function hash(bytes: Uint8Array): string {
  return Buffer.from(sha256(bytes)).toString('hex');
}
