import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { rootFingerprint } from '../../crypto/root-fingerprint.ts';
import { openChain, readEntries } from '../../replica/chain.ts';
import { toHex } from '../../replica/encoding.ts';
import { checksumsOf, type MachineContent } from '../fixtures/disk-images.ts';
import { MachineLife } from '../fixtures/machine-life.ts';
import { ReplicaRig } from '../rig/replica-rig.ts';
import { openPythonReader, type PythonReader } from './python-reader.ts';

/** The agent writes, the independent reader reads: two implementations that share nothing but docs/format.md. */

const never = new AbortController().signal;

const opened = await openPythonReader();
const needs = typeof opened === 'string' ? opened : null;

function checksums(points: ReadonlyMap<number, MachineContent>): unknown {
  return Object.fromEntries([...points].map(([point, content]) => [point, checksumsOf(content)]));
}

describe.skipIf(needs !== null)(needs ?? 'the independent reader', () => {
  let life: MachineLife;
  let python: PythonReader;
  let bucket: string;
  let access: string[];

  beforeAll(async () => {
    if (typeof opened === 'string') return;
    python = opened;
    life = await MachineLife.live(await ReplicaRig.create(), 'large');
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
