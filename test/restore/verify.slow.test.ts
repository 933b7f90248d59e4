import { createHash, randomBytes, randomInt } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { VerifyLevel } from '../../restore/verify/finding.ts';
import { ModelMachine } from '../fakes/model-machine.ts';
import { ReplicaRig } from '../rig/replica-rig.ts';
import { RigBucket } from '../rig/rig-bucket.ts';

const block = 65_536;
const keyless = ['present', 'checksum', 'ciphertext'] as const;
const levels: readonly VerifyLevel[] = [...keyless, 'full'];

/** Three points of two disks and an attachment; each point by its number. */
let rig: ReplicaRig;
let points: readonly [number, number, number];
const truth = new Map<number, ReadonlyMap<string, string>>();

beforeAll(async () => {
  rig = await ReplicaRig.create();
  const machine = new ModelMachine();
  const system = machine.addDisk('system', 200 * block);
  const data = machine.addDisk('data', 700 * block + 77);
  system.write(0, randomBytes(60 * block));
  data.write(100 * block, randomBytes(20 * block));
  data.write(699 * block, randomBytes(block + 77));
  machine.attachments.set('nvram.bin', randomBytes(300_000));
  machine.attachments.set('machine.xml', Buffer.from('<domain/>'));
  const sync = async (): Promise<number> => {
    const { point } = await rig.protect(machine, { segmentBytes: 600_000 });
    const disks = [...machine.newest].map(([label, content]) => [label, content.bytes()] as const);
    truth.set(point, digests(new Map([...disks, ...machine.attachments])));
    return point;
  };
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
    await using copy = await RigBucket.copyOf(rig);
    for (const level of levels) {
      const report = await copy.verify(level, { keyless: level !== 'full', chain: true });
      expect(report).toMatchObject({ level, findings: [], whole: points, hurt: [], doubtful: [], repairable: [] });
      expect(report.counts.segments).toBe(copy.names('/segments/').length);
      expect(report.counts).toMatchObject({ keyRecords: 1, entries: 6 });
    }
  });
});

describe('a segment that is not what it was', () => {
  it('is missed at every level, and level full says whom it hurts', async () => {
    await using copy = await RigBucket.copyOf(rig);
    const { runs } = await copy.layout(points[2], 'data');
    const onlyNewest = runs.find(({ at }) => at.tenure > points[1]);
    if (onlyNewest === undefined) throw new Error('the newest point sent nothing');
    const name = copy.segment(onlyNewest.at);
    copy.remove(name);
    for (const level of levels) {
      const report = await copy.verify(level);
      expect(report.findings).toMatchObject([
        { object: name, code: 'OBJECT_NOT_FOUND', kind: 'damaged', points: [points[2]], certain: level === 'full' },
      ]);
      expect(report.whole).toEqual([points[0], points[1]]);
      expect(report.repairable).toEqual([{ tenure: onlyNewest.at.tenure, number: onlyNewest.at.number }]);
    }
  });

  it('is found by its length when it was cut short, and level full tells the records that are left from those that are not', async () => {
    await using copy = await RigBucket.copyOf(rig);
    const { runs } = await copy.layout(points[0], 'system');
    const overwritten = runs.find(({ first, count }) => first <= 3 && first + count > 3);
    const name = copy.segment(overwritten?.at ?? { tenure: 0, number: 0 });
    // The record of block 3 goes on being used by the second and third point, but what follows it is longer.
    const inSegment = runs.filter(({ at }) => copy.segment(at) === name);
    const last = inSegment.at(-1);
    if (last === undefined) throw new Error('nothing lies in that segment');
    copy.truncate(name, last.at.offset + 10);
    for (const level of keyless) {
      const { findings } = await copy.verify(level);
      expect(findings).toMatchObject([{ object: name, code: 'OBJECT_ALTERED', certain: false }]);
    }
    const { findings } = await copy.verify('full');
    expect(findings.map(({ code }) => code).sort()).toEqual(['OBJECT_ALTERED', 'RANGE_INVALID']);
    const [cut] = findings.filter(({ code }) => code === 'RANGE_INVALID');
    expect(cut?.points).toEqual(await hurtPoints(copy));
    expect(findings.every(({ points: hurt, certain }) => certain && hurt.length === cut?.points.length)).toBe(true);
  });

  it('is found by its bytes alone where one bit flipped, with exactly the points that use the record', async () => {
    await using copy = await RigBucket.copyOf(rig);
    const { runs } = await copy.layout(points[0], 'system');
    const discarded = runs.find(({ first, count }) => first <= 42 && first + count > 42);
    if (discarded === undefined) throw new Error('block 42 was not in the seed');
    const name = copy.segment(discarded.at);
    copy.flip(name, discarded.at.offset + 5);
    for (const level of ['present', 'checksum'] as const) expect((await copy.verify(level)).findings).toEqual([]);
    const { findings, doubtful, hurt } = await copy.verify('ciphertext', { keyless: true });
    expect(findings).toMatchObject([{ object: name, code: 'OBJECT_ALTERED', certain: false }]);
    expect([doubtful, hurt]).toEqual([points, []]);
    const full = await copy.verify('full');
    expect(full.findings).toMatchObject([{ object: name, code: 'RECORD_TAMPERED', certain: true }]);
    expect(full.hurt).toEqual(await hurtPoints(copy));
    expect(full.hurt).toContain(points[0]);
    await expect(copy.restore(points[0])).rejects.toMatchObject({ code: 'RECORD_TAMPERED' });
  });

  it('is found by level ciphertext in bytes that no point uses, and restores all the same', async () => {
    await using copy = await RigBucket.copyOf(rig);
    const segments = copy.names('/segments/');
    for (const name of segments) copy.flip(name, -20);
    const { findings } = await copy.verify('ciphertext', { keyless: true });
    expect(findings.map(({ object }) => object).sort()).toEqual(segments);
    const full = await copy.verify('full');
    expect(full).toMatchObject({ findings: [], whole: points });
    expect(await hurtPoints(copy)).toEqual([]);
  });

  it('that holds pages hurts every point that walks over them', async () => {
    await using copy = await RigBucket.copyOf(rig);
    const { pages } = await copy.layout(points[1], 'data');
    const leaf = pages.at(-1);
    if (leaf === undefined) throw new Error('no pages');
    copy.flip(copy.segment(leaf), leaf.offset + 3);
    const { findings, hurt } = await copy.verify('full');
    expect(findings).toMatchObject([{ object: copy.segment(leaf), code: 'PAGE_REPLACED', certain: true }]);
    expect(hurt).toEqual(await hurtPoints(copy));
    expect(hurt).toEqual(points);
  });

  it('with a header of other bytes opens no record at all', async () => {
    await using copy = await RigBucket.copyOf(rig);
    const { runs } = await copy.layout(points[2], 'data');
    const at = runs[0]?.at ?? { tenure: 0, number: 0 };
    copy.flip(copy.segment(at), 70);
    const { findings, hurt } = await copy.verify('full');
    expect(findings).toMatchObject([{ object: copy.segment(at), code: 'COMMITMENT_MISMATCH' }]);
    expect(hurt).toEqual(await hurtPoints(copy));
  });

  it('that names another key epoch is to blame for it, not the key records', async () => {
    await using copy = await RigBucket.copyOf(rig);
    const { runs } = await copy.layout(points[2], 'data');
    const at = runs[0]?.at ?? { tenure: 0, number: 0 };
    copy.flip(copy.segment(at), 55);
    const { findings, hurt } = await copy.verify('full');
    expect(findings).toMatchObject([{ object: copy.segment(at), code: 'SEGMENT_MISPLACED' }]);
    expect(hurt).toEqual(await hurtPoints(copy));
  });

  it('that holds an attachment hurts the points that have it', async () => {
    await using copy = await RigBucket.copyOf(rig);
    const { chunks } = await copy.layout(points[2], 'data');
    // The second attachment is that of the newest point only.
    const at = chunks.find(({ tenure }) => tenure > points[1]);
    if (at === undefined) throw new Error('no new attachment');
    copy.flip(copy.segment(at), at.offset + 1);
    const { hurt, findings } = await copy.verify('full');
    expect(findings).toMatchObject([{ code: 'RECORD_TAMPERED', points: [points[2]], certain: true }]);
    expect(hurt).toEqual([points[2]]);
    expect(await hurtPoints(copy)).toEqual([points[2]]);
  });

  it('is not looked at where the points that are asked for do not need it', async () => {
    await using copy = await RigBucket.copyOf(rig);
    for (const name of copy.names('/segments/')) if (tenureOf(name) > points[0]) copy.remove(name);
    for (const level of levels) {
      const report = await copy.verify(level, { points: [points[0]] });
      expect(report).toMatchObject({ findings: [], whole: [points[0]], hurt: [] });
    }
    await expect(copy.verify('present', { points: [999] })).rejects.toMatchObject({ code: 'REPLICA_NOT_FOUND' });
  });
});

describe('a checksum that the store recorded', () => {
  it('is said to be missing where the store keeps none', async () => {
    await using copy = await RigBucket.copyOf(rig);
    const { counts, proves } = await copy.verify('checksum', { keyless: true });
    expect(counts.unprovable).toBe(counts.segments);
    expect(proves).toContain('not what is there now');
  });
});

describe('any damage', () => {
  it('hurts exactly the points that no longer restore', { timeout: 120_000 }, async () => {
    for (let round = 0; round < 12; round++) {
      await using copy = await RigBucket.copyOf(rig);
      const segments = copy.names('/segments/');
      const log: string[] = [];
      for (let i = 0; i < 1 + (round % 4); i++) log.push(damageAny(copy, segments));
      const { hurt, whole, doubtful } = await copy.verify('full');
      expect([hurt, whole, doubtful], log.join('; ')).toEqual([
        await hurtPoints(copy),
        points.filter((point) => !hurt.includes(point)),
        [],
      ]);
    }
  });
});

function damageAny(copy: RigBucket, segments: readonly string[]): string {
  const name = segments[randomInt(segments.length)] ?? '';
  const { length } = copy.bytes(name);
  const kind = randomInt(4);
  const at = randomInt(length);
  if (kind === 0) copy.truncate(name, at);
  else copy.flip(name, at);
  return `${kind === 0 ? 'cut' : 'flipped'} ${name} at ${at} of ${length}`;
}

function tenureOf(segment: string): number {
  return Number(segment.split('/').at(-2));
}

/** Judged by restoring everything. */
async function hurtPoints(copy: RigBucket): Promise<readonly number[]> {
  const hurt: number[] = [];
  for (const point of points) {
    const content = await copy.restore(point).catch(() => null);
    if (content === null) hurt.push(point);
    else expect(digests(content)).toEqual(truth.get(point));
  }
  return hurt;
}

function digests(content: ReadonlyMap<string, Uint8Array>): ReadonlyMap<string, string> {
  return new Map([...content].map(([name, bytes]) => [name, createHash('sha256').update(bytes).digest('hex')]));
}
