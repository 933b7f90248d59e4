import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { VerifyLevel } from '../../restore/verify/finding.ts';
import { ModelMachine } from '../fakes/model-machine.ts';
import { ReplicaRig } from '../rig/replica-rig.ts';
import { BucketCopy } from './bucket-copy.ts';

const block = 65_536;
const keyless = ['present', 'checksum', 'ciphertext'] as const;
const levels: readonly VerifyLevel[] = [...keyless, 'full'];

/** Three points of two disks and an attachment; each point by its number. */
let rig: ReplicaRig;
let points: readonly [number, number, number];

beforeAll(async () => {
  rig = await ReplicaRig.create();
  const machine = new ModelMachine();
  const system = machine.addDisk('system', 200 * block);
  const data = machine.addDisk('data', 9000 * block + 77);
  system.write(0, randomBytes(60 * block));
  data.write(100 * block, randomBytes(20 * block));
  data.write(8999 * block, randomBytes(block + 77));
  machine.attachments.set('nvram.bin', randomBytes(300_000));
  machine.attachments.set('machine.xml', Buffer.from('<domain/>'));
  const sync = async (): Promise<number> => (await rig.protect(machine, { segmentBytes: 600_000 })).point;
  const seeded = await sync();
  system.write(3 * block, randomBytes(block));
  system.discard(40 * block, 5 * block);
  const second = await sync();
  system.write(3 * block, randomBytes(2 * block));
  data.write(0, randomBytes(block));
  machine.attachments.set('machine.xml', Buffer.from('<domain type="kvm"/>'));
  points = [seeded, second, await sync()];
});

afterAll(async () => {
  await rig[Symbol.asyncDispose]();
});

describe('a replica that is whole', () => {
  it('has no finding at any level, and says what was looked at', async () => {
    await using copy = await BucketCopy.of(rig);
    for (const level of levels) {
      const report = await copy.verify(level, { keyless: level !== 'full', chain: true });
      expect(report).toMatchObject({ level, findings: [], whole: points, hurt: [], doubtful: [], repairable: [] });
      expect(report.counts.segments).toBe(copy.names('/segments/').length);
      expect(report.counts).toMatchObject({ keyRecords: 1, entries: 6 });
    }
  });
});
