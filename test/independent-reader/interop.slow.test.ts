import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { rootFingerprint } from '../../crypto/root-fingerprint.ts';
import { SigningKey } from '../../crypto/signing.ts';
import { openChain, readEntries } from '../../replica/chain.ts';
import { toHex } from '../../replica/encoding.ts';
import { type OpenRepository, openRepository } from '../../replica/open-repository.ts';
import { Tenure } from '../../replica/tenure.ts';
import { addRootReplacement, addTrust } from '../fixtures/change-trust.ts';
import { checksumsOf, DiskImages, type MachineContent, noise, prose } from '../fixtures/disk-images.ts';
import { appendEntry } from '../protocol/append-entry.ts';
import { ReplicaRig, type RigOptions } from '../rig/replica-rig.ts';
import { openPythonReader, type PythonReader } from './python-reader.ts';

/** The agent writes, the independent reader reads: two implementations that share nothing but docs/format.md. */

const blockBytes = 64 * 1024;
const dayMs = 24 * 3600 * 1000;
const never = new AbortController().signal;

const opened = await openPythonReader();
const needs = typeof opened === 'string' ? opened : null;

/** A machine's life with everything that the format knows, and what each of its points must restore. */
class Life {
  readonly rig: ReplicaRig;
  readonly images: DiskImages;
  readonly points = new Map<number, MachineContent>();
  readonly second = SigningKey.generate();
  readonly newRoot = SigningKey.generate();
  #options: Partial<RigOptions> = {};
  #round = 0;

  private constructor(rig: ReplicaRig) {
    this.rig = rig;
    this.images = new DiskImages(rig.folder, { system: 9 * blockBytes + 1000, data: 70 * blockBytes });
  }

  static async live(rig: ReplicaRig): Promise<Life> {
    const life = new Life(rig);
    await life.#seedAndSync();
    await life.#changeOwner();
    await life.#manySegments();
    await life.#growOld();
    return life;
  }

  async point(options: Partial<RigOptions> = {}): Promise<number> {
    const { point } = await this.rig.protect(this.images.connect(), { ...this.#options, ...options });
    this.points.set(point, this.images.capture());
    return point;
  }

  /** A few changes at other places each time: text, noise, a hole. */
  change(): void {
    const n = this.#round++;
    this.images.write('system', ((n * 7) % 8) * blockBytes + n, prose(`fox ${n}`, 3000));
    this.images.write(
      'data',
      ((n * 11) % 64) * blockBytes,
      n % 5 === 4 ? Buffer.alloc(blockBytes) : noise(`${n}`, 5000),
    );
  }

  async openRepo(): Promise<OpenRepository> {
    return await openRepository(this.rig.target, rootFingerprint(this.rig.root.publicKey), never);
  }

  async #seedAndSync(): Promise<void> {
    this.images.attach('machine.xml', prose('machine', 4000));
    this.images.attach('nvram', noise('nvram', 600_001));
    this.images.write('system', 0, noise('boot', 3 * blockBytes));
    this.images.write('system', 9 * blockBytes, prose('tail', 1000));
    this.images.write('data', 60 * blockBytes, prose('files', 10 * blockBytes));
    await this.point();
    this.change();
    await this.point();
    await this.point({ resync: true });
    this.images.resize('data', 200 * blockBytes + 512);
    this.images.write('data', 190 * blockBytes, noise('grown', 2 * blockBytes + 100));
    this.images.attach('nvram', noise('new nvram', 300_000));
    await this.point();
    this.images.resize('system', 2 * blockBytes + 70_000);
    this.images.add('empty', 5 * blockBytes);
    await this.point();
    this.images.remove('empty');
    for (let i = 0; i < 2; i++) {
      this.change();
      await this.point({ access: 'write-only' });
    }
    this.rig.now = () => Date.now() + 40 * dayMs;
    this.change();
    await this.point();
  }

  /** Another agent takes over; the first is revoked, and writes once more all the same. The root key is replaced. */
  async #changeOwner(): Promise<void> {
    const { rig } = this;
    const before = await this.openRepo();
    await addTrust(before, rig.root, {
      agents: [...before.trust.agents, { key: this.second.publicKey, revoked: null }],
    });
    const lastOfFirst = (await openChain(await this.openRepo(), rig.machineId, never))?.head;
    if (lastOfFirst === undefined) throw new Error('no chain');
    const stateFolder = join(rig.folder, 'second-state');
    await this.point({ agent: this.second, stateFolder, takeOver: true });
    this.#options = { agent: this.second, stateFolder };

    const stale = await this.openRepo();
    const cutoff = { machineId: rig.machineId, lastSeq: lastOfFirst.seq, digest: lastOfFirst.digest };
    const agents = [
      { key: rig.agent.publicKey, revoked: [cutoff] },
      { key: this.second.publicKey, revoked: null },
    ];
    await addTrust(stale, rig.root, { agents, retentionFloorDays: 30 });
    await this.#beginAsRevoked(stale);
    await addRootReplacement(await this.openRepo(), rig.root, this.newRoot);
    this.change();
    await this.point();
  }

  async #beginAsRevoked(stale: OpenRepository): Promise<void> {
    const { rig } = this;
    const chain = await openChain(stale, rig.machineId, never);
    const [epoch, keyRecordDigest] = [...(chain?.state.epochs ?? [])].at(-1) ?? [0, new Uint8Array(32)];
    const mark = { pending: () => undefined, confirmed: () => undefined };
    const options = { agent: rig.agent, mark, now: rig.now };
    await Tenure.begin(stale, rig.machineId, chain, { epoch, keyRecordDigest, adopt: false }, options, never);
  }

  /** So many births that the control data does not fit into the entry. */
  async #manySegments(): Promise<void> {
    const names = Array.from({ length: 1700 }, (_, i) => `file-${i}`);
    for (const name of names) this.images.attach(name, prose(name, 64));
    await this.point({ segmentBytes: 1, segmentsInFlightMax: 16 });
    for (const name of names) this.images.detach(name);
    await this.point();
  }

  /** Beyond entry 128, with entries between the tenures' own. */
  async #growOld(): Promise<void> {
    await this.#append({ type: 'lock', generation: 1, untilMs: 2_000_000_000_000 });
    const [, pruned] = this.points.keys();
    if (pruned === undefined) throw new Error('no second point');
    await this.#append({ type: 'prune', points: [pruned] });
    this.points.delete(pruned);
    await this.#append({ type: 'lock', generation: 2, untilMs: 1_900_000_000_000 });
    for (let head = 0; head < 131; ) {
      this.change();
      head = await this.point();
      for (let i = 0; i < 7; i++) await this.#append({ type: 'lock', generation: 2, untilMs: 1_000 * i });
    }
  }

  async #append(body: Parameters<typeof appendEntry>[2]): Promise<void> {
    const repo = await this.openRepo();
    const chain = await openChain(repo, this.rig.machineId, never);
    if (chain === null || !(await appendEntry(repo, chain, body, this.second))) throw new Error('not appended');
  }
}

function checksums(points: ReadonlyMap<number, MachineContent>): unknown {
  return Object.fromEntries([...points].map(([point, content]) => [point, checksumsOf(content)]));
}

describe.skipIf(needs !== null)(needs ?? 'the independent reader', () => {
  let life: Life;
  let python: PythonReader;
  let bucket: string;
  let access: string[];

  beforeAll(async () => {
    if (typeof opened === 'string') return;
    python = opened;
    life = await Life.live(await ReplicaRig.create());
    const { folder, machineId, recovery } = life.rig;
    bucket = join(folder, 'bucket');
    writeFileSync(join(folder, 'recovery.pem'), recovery.privatePem);
    const root = rootFingerprint(life.newRoot.publicKey);
    access = ['--recovery-key', join(folder, 'recovery.pem'), '--root', root, '--machine', toHex(machineId)];
  });

  afterAll(async () => await life?.rig[Symbol.asyncDispose]());

  it('meets everything: two summaries, epochs, a void entry, control data outside its entry, a trust history', async () => {
    const repo = await life.openRepo();
    const chain = await openChain(repo, life.rig.machineId, never);
    const entries = await readEntries(repo, life.rig.machineId, 1, chain?.head.seq ?? 0, never);
    expect(entries.length).toBeGreaterThan(130);
    expect(entries.filter(({ isVoid }) => isVoid)).toHaveLength(1);
    expect(entries.filter(({ control }) => 'sha256' in control).length).toBeGreaterThanOrEqual(2);
    expect([...new Set(entries.map(({ body }) => body.type))].sort()).toEqual(['begin', 'lock', 'prune', 'publish']);
    expect(chain?.state.epochs.size).toBeGreaterThanOrEqual(4);
    expect(repo).toMatchObject({ trust: { n: 3 }, pinnedRootReplaced: true });
  });

  it('finds the points that the agent published, through the newest summary and through the whole chain', async () => {
    const points = [...life.points.keys()];
    for (const more of [[], ['--whole-chain']]) {
      const listed = await python.call('list', bucket, [...access, ...more]);
      expect(listed).toMatchObject({
        trust: 3,
        machines: [{ points: points.map((point) => ({ point })) }],
      });
    }
  });

  it('opens every record, follows every rule of the chain, and counts the same units', async () => {
    const verified = await python.call('verify', bucket, [...access, '--whole-chain']);
    expect(verified).toMatchObject({ points: [...life.points.keys()] });
  });

  it('restores every disk and attachment of every point', async () => {
    const found = await python.call('checksums', bucket, access);
    expect(found).toEqual({ machine: toHex(life.rig.machineId), points: checksums(life.points) });
  });

  it('restores the newest point with the local key', async () => {
    const [point, content] = [...life.points].at(-1) ?? [];
    const key = ['--local-key', join(life.rig.folder, 'local.key'), ...access.slice(2)];
    const out = join(life.rig.folder, 'restored');
    await python.call('restore', bucket, [...key, '--point', `${point}`, '--disk', 'data', '--out', out]);
    expect(content?.disks.get('data')?.equals(readFileSync(out))).toBe(true);
    await python.call('attachments', bucket, [...key, '--point', `${point}`, '--out', `${out}-files`]);
    expect(readFileSync(join(`${out}-files`, 'nvram'))).toEqual(content?.attachments.get('nvram'));
  });

  it('lists the blocks of every segment by the footers alone', async () => {
    const rebuilt = await python.call('rebuild', bucket, access);
    expect(rebuilt).toMatchObject({ segments: expect.any(Array), disks: expect.any(Object) });
  });

  it('agrees with the agent, which restores the same', async () => {
    for (const [point, { disks }] of [...life.points].slice(-3)) {
      for (const [label, content] of disks) {
        const restored = await life.rig.restore(point, label);
        expect(Buffer.compare(restored, content), `disk ${label} of point ${point}`).toBe(0);
      }
    }
  });
});
