import { createHash, randomBytes, randomInt } from 'node:crypto';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { PublishedPoint } from '../../../agent/protect/protect-machine.ts';
import { MachineState } from '../../../agent/state/machine-state.ts';
import type { SegmentId } from '../../../replica/names.ts';
import { keyRecordName } from '../../../replica/names.ts';
import type { VerifyReport } from '../../../restore/verify/finding.ts';
import { StoreUnavailable } from '../../../storage-targets/errors.ts';
import type { StorageTarget } from '../../../storage-targets/storage-target.ts';
import { ModelMachine } from '../../fakes/model-machine.ts';
import { usageOf } from '../../law/unit-usage.ts';
import { Random } from '../../random.ts';
import { ReplicaRig, type RigOptions, wrapOnly } from '../../rig/replica-rig.ts';
import { RigBucket } from '../../rig/rig-bucket.ts';
import { RigWorkers } from '../../rig/rig-workers.ts';

const block = 65_536;
let workers: RigWorkers;
let rig: ReplicaRig;
let bucket: RigBucket;
let machine: ModelMachine;
const truth = new Map<number, ReadonlyMap<string, string>>();

beforeAll(() => {
  workers = new RigWorkers();
});
afterAll(() => workers[Symbol.asyncDispose]());

beforeEach(async () => {
  rig = await ReplicaRig.create(undefined, { workers, inMemory: true });
  bucket = RigBucket.of(rig);
  machine = new ModelMachine();
  machine.addDisk('system', 300 * block).write(0, randomBytes(40 * block));
  machine.addDisk('data', 90 * block + 5).write(60 * block, randomBytes(30 * block + 5));
  machine.attachments.set('nvram', randomBytes(280_000));
  truth.clear();
});
afterEach(() => rig[Symbol.asyncDispose]());

async function sync(options: Partial<RigOptions> = {}): Promise<PublishedPoint> {
  const published = await rig.protect(machine, { segmentBytes: 600_000, ...options });
  const disks = [...machine.newest].map(([label, content]) => [label, content.bytes()] as const);
  truth.set(published.point, digests(new Map([...disks, ...machine.attachments])));
  return published;
}

function digests(content: ReadonlyMap<string, Uint8Array>): ReadonlyMap<string, string> {
  return new Map([...content].map(([name, bytes]) => [name, createHash('sha256').update(bytes).digest('hex')]));
}

function withState<T>(work: (state: MachineState) => T): T {
  using state = new MachineState(rig.stateFolder, 'machine');
  return work(state);
}

/** As `failkit verify` does: what it finds is handed to the agent's state. */
async function verify(level: 'ciphertext' | 'full' = 'full'): Promise<VerifyReport> {
  const report = await bucket.verify(level);
  withState((state) => state.addDamagedSegments(report.repairable));
  return report;
}

/** The point is whole by every means, and the chain counts what it uses. */
async function expectWhole(point: number): Promise<void> {
  expect(await bucket.verify('full', { points: [point] })).toMatchObject({ hurt: [], doubtful: [], whole: [point] });
  expect(digests(await bucket.restore(point))).toEqual(truth.get(point));
  using reader = await rig.open();
  const { state } = reader.replica.chain;
  const used = await usageOf((await reader.replica.openPoint(point, rig.signal)).manifest, reader);
  for (const [key, { units, dead }] of state.segments) expect([key, units - dead]).toEqual([key, used.get(key) ?? 0]);
}

async function expectLost(points: readonly number[]): Promise<void> {
  for (const point of points) await expect(bucket.restore(point)).rejects.toMatchObject({ code: expect.any(String) });
}

const reasonsOf = ({ manifest }: PublishedPoint): Record<string, string> =>
  Object.fromEntries(manifest.disks.map(({ label, fullReadReason }) => [label, fullReadReason]));

describe('a damaged segment of blocks', () => {
  for (const [how, damage] of Object.entries({
    flipped: (name: string, at: number) => bucket.flip(name, at),
    missing: (name: string) => bucket.remove(name),
    'cut short': (name: string) => bucket.truncate(name, 130),
  })) {
    it(`that is ${how} is sent again from the source, and the next point is whole`, async () => {
      const first = await sync();
      const { runs } = await bucket.layout(first.point, 'system');
      // Neither what lies beside an attachment, nor what lies beside the other disk.
      const at = runs[runs.length >> 1]?.at ?? { tenure: 0, number: 0, offset: 0 };
      const inSegment = runs.filter((run) => sameSegment(run.at, at)).reduce((sum, { count }) => sum + count, 0);
      damage(bucket.segment(at), at.offset + 1);
      expect((await verify()).repairable).toEqual([idOf(at)]);

      const repaired = await sync();
      expect(reasonsOf(repaired)).toEqual({ system: 'repair: 1 damaged segment', data: '' });
      expect(repaired.repair).toEqual({
        segments: [idOf(at)],
        resentBlocks: inSegment,
        resentAttachments: [],
        resentDisks: [],
        hurtPoints: [first.point],
      });
      expect(repaired.manifest.changedBytes).toBe(inSegment * block);
      await expectWhole(repaired.point);
      await expectLost([first.point]);

      expect(withState((state) => state.damagedSegments)).toEqual([]);
      const next = await sync();
      expect([reasonsOf(next), next.repair]).toEqual([{ system: '', data: '' }, null]);
      await expectWhole(next.point);
    });
  }

  it('that only an older point needs is no reason to read anything', async () => {
    const first = await sync();
    const old = await bucket.layout(first.point, 'system');
    machine.disks.get('system')?.write(0, randomBytes(40 * block));
    const second = await sync();
    const inUse = await Promise.all(['system', 'data'].map((label) => bucket.layout(second.point, label)));
    const used = inUse.flatMap(({ pages, runs, chunks }) => [...pages, ...runs.map(({ at }) => at), ...chunks]);
    const at = old.runs.map((run) => run.at).find((candidate) => !used.some((other) => sameSegment(other, candidate)));
    if (at === undefined) throw new Error('everything of the first point is still in use');
    bucket.flip(bucket.segment(at), at.offset + 1);
    expect(await verify()).toMatchObject({ hurt: [first.point], whole: [second.point], repairable: [] });
    const { repair, manifest } = await sync();
    expect([repair, manifest.readBytes]).toEqual([null, 0]);
  });

  it('takes along what changed on the source meanwhile: that content is lost for the points that had it', async () => {
    const first = await sync();
    const { runs } = await bucket.layout(first.point, 'system');
    const at = runs[0]?.at ?? { tenure: 0, number: 0, offset: 0 };
    bucket.flip(bucket.segment(at), at.offset);
    await verify('ciphertext');
    machine.disks.get('system')?.write(0, randomBytes(block));
    machine.disks.get('system')?.discard(block, block);
    const repaired = await sync();
    expect(repaired.repair?.hurtPoints).toEqual([first.point]);
    await expectWhole(repaired.point);
    await expectLost([first.point]);
  });
});

describe('a damaged segment of pages', () => {
  it('is written anew from the local cache, though no block changed', async () => {
    const first = await sync();
    const { pages } = await bucket.layout(first.point, 'system');
    for (const page of pages) bucket.flip(bucket.segment(page), page.offset + 2);
    await verify();
    const repaired = await sync();
    expect(reasonsOf(repaired).system).toMatch(/^repair: \d+ damaged segments?$/);
    expect(repaired.repair?.resentDisks).toEqual([]);
    await expectWhole(repaired.point);
  });

  it('does not hide from a verify that blocks are damaged below a page which only the local cache still has', async () => {
    const first = await sync();
    const { pages, runs } = await bucket.layout(first.point, 'system');
    const leaf = pages.at(-1) ?? { tenure: 0, number: 0, offset: 0 };
    const below = runs.find(({ at }) => !pages.some((page) => sameSegment(page, at)))?.at ?? leaf;
    expect(idOf(below)).not.toEqual(idOf(leaf));
    for (const at of [leaf, below]) bucket.flip(bucket.segment(at), at.offset + 2);
    expect((await verify()).repairable).toEqual([idOf(below), idOf(leaf)]);
    const repaired = await sync();
    expect(repaired.repair?.segments).toEqual([idOf(below), idOf(leaf)]);
    await expectWhole(repaired.point);
  });

  it('that can be read nowhere is met by the run itself, which sends that disk again and says why', async () => {
    const first = await sync();
    const { pages } = await bucket.layout(first.point, 'system');
    const root = pages[0];
    const leaf = pages.at(-1);
    if (root === undefined || leaf === undefined) throw new Error('no pages');
    bucket.flip(bucket.segment(leaf), leaf.offset + 2);
    withState((state) => state.clearPages());
    machine.disks.get('system')?.write(39 * block, randomBytes(block));
    const repaired = await sync();
    const reasons = reasonsOf(repaired);
    expect(reasons.system).toBe('repair: its block map could not be read: everything is sent again');
    // The segment may hold blocks of the other disk, too: then they were sent again as well.
    expect(reasons.data).toMatch(/^$|^repair: 1 damaged segment$/);
    expect(repaired.repair).toMatchObject({
      segments: [idOf(leaf)],
      resentDisks: ['system'],
      hurtPoints: [first.point],
    });
    expect(repaired.repair?.resentBlocks).toBeGreaterThanOrEqual(40);
    await expectWhole(repaired.point);
    await expectLost([first.point]);
    const next = await sync();
    expect(next.repair).toBeNull();
    await expectWhole(next.point);
  });

  it('of a disk that is gone does not keep the others from being protected', async () => {
    const first = await sync();
    const { pages } = await bucket.layout(first.point, 'data');
    for (const name of new Set(pages.map((page) => bucket.segment(page)))) bucket.remove(name);
    withState((state) => state.clearPages());
    machine.disks.delete('data');
    const { point, repair } = await sync();
    expect(repair?.segments.length).toBeGreaterThan(0);
    await expectWhole(point);
  });
});

describe('damage elsewhere', () => {
  it('to an attachment sends it again', async () => {
    const first = await sync();
    const { chunks } = await bucket.layout(first.point, 'system');
    const at = chunks[0] ?? { tenure: 0, number: 0, offset: 0 };
    bucket.flip(bucket.segment(at), at.offset + 9);
    await verify();
    const repaired = await sync();
    expect(repaired.repair?.resentAttachments).toEqual(['nvram']);
    await expectWhole(repaired.point);
  });

  it('to the key record in force starts a new epoch and sends everything again', async () => {
    const first = await sync();
    bucket.flip(keyRecordName(rig.machineId, 1, 0), 60);
    const repaired = await sync();
    expect(Object.values(reasonsOf(repaired))).toEqual(
      Array.from({ length: 2 }, () => 'repair: the key record of epoch 1 is damaged or gone: everything is sent again'),
    );
    expect(repaired.repair).toMatchObject({
      resentBlocks: 71,
      resentAttachments: ['nvram'],
      hurtPoints: [first.point],
    });
    await expectWhole(repaired.point);
    const next = await sync();
    expect([reasonsOf(next), next.repair]).toEqual([{ system: '', data: '' }, null]);
  });

  it('is repaired by an agent that may not unwrap keys, too', async () => {
    const writeOnly = { access: 'write-only', provider: wrapOnly(rig.provider) } as const;
    const first = await sync(writeOnly);
    const { runs } = await bucket.layout(first.point, 'data');
    const at = runs[0]?.at ?? { tenure: 0, number: 0, offset: 0 };
    bucket.flip(bucket.segment(at), at.offset + 1);
    await verify();
    const repaired = await sync(writeOnly);
    expect(reasonsOf(repaired).data).toBe('repair: 1 damaged segment');
    expect(repaired.repair?.resentDisks).toEqual([]);
    await expectWhole(repaired.point);
  });
});

describe('a repair that does not end', () => {
  it('is taken up again by the next run', async () => {
    const first = await sync();
    const { runs } = await bucket.layout(first.point, 'system');
    const at = runs[0]?.at ?? { tenure: 0, number: 0, offset: 0 };
    bucket.flip(bucket.segment(at), at.offset + 1);
    await verify();
    await expect(sync({ target: withoutPublish(rig.target, 'lost') })).rejects.toMatchObject({
      code: 'STORE_UNAVAILABLE',
    });
    expect(withState((state) => state.damagedSegments)).toEqual([idOf(at)]);
    const repaired = await sync();
    expect(repaired.repair?.segments).toEqual([idOf(at)]);
    await expectWhole(repaired.point);
  });

  it('but was published without an answer is known to be done', async () => {
    const first = await sync();
    const { runs } = await bucket.layout(first.point, 'system');
    const at = runs[0]?.at ?? { tenure: 0, number: 0, offset: 0 };
    bucket.flip(bucket.segment(at), at.offset + 1);
    await verify();
    await expect(sync({ target: withoutPublish(rig.target, 'unanswered') })).rejects.toMatchObject({
      code: 'STORE_UNAVAILABLE',
    });
    const next = await sync();
    expect([reasonsOf(next), next.repair]).toEqual([{ system: '', data: '' }, null]);
    await expectWhole(next.point);
  });
});

describe('any damage to segments', () => {
  it('is followed by a whole point, whether it was verified before or is met', { timeout: 180_000 }, async () => {
    const seed = randomInt(2 ** 32);
    const random = new Random(seed);
    for (let round = 0; round < 10; round++) {
      await sync();
      for (const [label, disk] of machine.disks) {
        if (label === 'system') disk.write(random.below(290) * block + 7, randomBytes(3 * block));
        else disk.discard(random.below(80) * block, random.below(5) * block);
      }
      await sync();
      const damaged = damageSome(1 + (round % 4), random);
      if (random.chance(0.5)) withState((state) => state.clearPages());
      await verify(random.chance(0.5) ? 'full' : 'ciphertext');
      const { point } = await sync();
      await expectWhole(point).catch((error: unknown) => {
        throw new Error(`seed ${seed}, round ${round}: ${damaged.join('; ')}`, { cause: error });
      });
    }
  });
});

/** Flips a bit of so many segments, or removes them. Says what it did. */
function damageSome(count: number, random: Random): readonly string[] {
  const segments = bucket.names('/segments/');
  const done: string[] = [];
  for (let i = 0; i < count; i++) {
    const name = random.pick(segments);
    if (!bucket.names(name).includes(name)) continue;
    const at = random.below(bucket.bytes(name).length - 40);
    const remove = random.below(3) === 0;
    if (remove) bucket.remove(name);
    else bucket.flip(name, at);
    done.push(remove ? `${name} removed` : `${name} flipped at ${at}`);
  }
  return done;
}

/** The next publish entry meets a store that goes away, before or after it is put. */
function withoutPublish(target: StorageTarget, how: 'lost' | 'unanswered'): StorageTarget {
  let entries = 0;
  return {
    ...target,
    async putIfAbsent(name, bytes, options, signal) {
      const isPublish = name.includes('/chain/') && ++entries === 2;
      if (!isPublish || how === 'unanswered') await target.putIfAbsent(name, bytes, options, signal);
      if (isPublish) throw new StoreUnavailable('no answer');
    },
  };
}

function sameSegment(a: SegmentId, b: SegmentId): boolean {
  return a.tenure === b.tenure && a.number === b.number;
}

function idOf({ tenure, number }: SegmentId): SegmentId {
  return { tenure, number };
}
