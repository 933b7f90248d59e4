import { randomBytes } from 'node:crypto';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { PublishedPoint } from '../../../agent/protect/protect-machine.ts';
import type { SegmentId } from '../../../replica/names.ts';
import { keyRecordName } from '../../../replica/names.ts';
import { StoreUnavailable } from '../../../storage-targets/errors.ts';
import type { StorageTarget } from '../../../storage-targets/storage-target.ts';
import { block, RepairStage } from '../../rig/repair-stage.ts';
import { wrapOnly } from '../../rig/replica-rig.ts';
import { RigWorkers } from '../../rig/rig-workers.ts';

let workers: RigWorkers;
let stage: RepairStage;

beforeAll(() => {
  workers = new RigWorkers();
});
afterAll(() => workers[Symbol.asyncDispose]());

beforeEach(async () => {
  stage = await RepairStage.create(workers);
});
afterEach(() => stage[Symbol.asyncDispose]());

async function expectLost(points: readonly number[]): Promise<void> {
  for (const point of points)
    await expect(stage.bucket.restore(point)).rejects.toMatchObject({ code: expect.any(String) });
}

const reasonsOf = ({ manifest }: PublishedPoint): Record<string, string> =>
  Object.fromEntries(manifest.disks.map(({ label, fullReadReason }) => [label, fullReadReason]));

describe('a damaged segment of blocks', () => {
  for (const [how, damage] of Object.entries({
    flipped: (name: string, at: number) => stage.bucket.flip(name, at),
    missing: (name: string) => stage.bucket.remove(name),
    'cut short': (name: string) => stage.bucket.truncate(name, 130),
  })) {
    it(`that is ${how} is sent again from the source, and the next point is whole`, async () => {
      const first = await stage.sync();
      const { runs } = await stage.bucket.layout(first.point, 'system');
      // Neither what lies beside an attachment, nor what lies beside the other disk.
      const at = runs[runs.length >> 1]?.at ?? { tenure: 0, number: 0, offset: 0 };
      const inSegment = runs.filter((run) => sameSegment(run.at, at)).reduce((sum, { count }) => sum + count, 0);
      damage(stage.bucket.segment(at), at.offset + 1);
      expect((await stage.verify()).repairable).toEqual([idOf(at)]);

      const repaired = await stage.sync();
      expect(reasonsOf(repaired)).toEqual({ system: 'repair: 1 damaged segment', data: '' });
      expect(repaired.repair).toEqual({
        segments: [idOf(at)],
        resentBlocks: inSegment,
        resentAttachments: [],
        resentDisks: [],
        hurtPoints: [first.point],
      });
      expect(repaired.manifest.changedBytes).toBe(inSegment * block);
      await stage.expectWhole(repaired.point);
      await expectLost([first.point]);

      expect(stage.withState((state) => state.damagedSegments)).toEqual([]);
      const next = await stage.sync();
      expect([reasonsOf(next), next.repair]).toEqual([{ system: '', data: '' }, null]);
      await stage.expectWhole(next.point);
    });
  }

  it('that only an older point needs is no reason to read anything', async () => {
    const first = await stage.sync();
    const old = await stage.bucket.layout(first.point, 'system');
    stage.machine.disks.get('system')?.write(0, randomBytes(40 * block));
    const second = await stage.sync();
    const inUse = await Promise.all(['system', 'data'].map((label) => stage.bucket.layout(second.point, label)));
    const used = inUse.flatMap(({ pages, runs, chunks }) => [...pages, ...runs.map(({ at }) => at), ...chunks]);
    const at = old.runs.map((run) => run.at).find((candidate) => !used.some((other) => sameSegment(other, candidate)));
    if (at === undefined) throw new Error('everything of the first point is still in use');
    stage.bucket.flip(stage.bucket.segment(at), at.offset + 1);
    expect(await stage.verify()).toMatchObject({ hurt: [first.point], whole: [second.point], repairable: [] });
    const { repair, manifest } = await stage.sync();
    expect([repair, manifest.readBytes]).toEqual([null, 0]);
  });

  it('takes along what changed on the source meanwhile: that content is lost for the points that had it', async () => {
    const first = await stage.sync();
    const { runs } = await stage.bucket.layout(first.point, 'system');
    const at = runs[0]?.at ?? { tenure: 0, number: 0, offset: 0 };
    stage.bucket.flip(stage.bucket.segment(at), at.offset);
    await stage.verify('ciphertext');
    stage.machine.disks.get('system')?.write(0, randomBytes(block));
    stage.machine.disks.get('system')?.discard(block, block);
    const repaired = await stage.sync();
    expect(repaired.repair?.hurtPoints).toEqual([first.point]);
    await stage.expectWhole(repaired.point);
    await expectLost([first.point]);
  });
});

describe('a damaged segment of pages', () => {
  it('is written anew from the local cache, though no block changed', async () => {
    const first = await stage.sync();
    const { pages } = await stage.bucket.layout(first.point, 'system');
    for (const page of pages) stage.bucket.flip(stage.bucket.segment(page), page.offset + 2);
    await stage.verify();
    const repaired = await stage.sync();
    expect(reasonsOf(repaired).system).toMatch(/^repair: \d+ damaged segments?$/);
    expect(repaired.repair?.resentDisks).toEqual([]);
    await stage.expectWhole(repaired.point);
  });

  it('does not hide from a verify that blocks are damaged below a page which only the local cache still has', async () => {
    const first = await stage.sync();
    const { pages, runs } = await stage.bucket.layout(first.point, 'system');
    const leaf = pages.at(-1) ?? { tenure: 0, number: 0, offset: 0 };
    const below = runs.find(({ at }) => !pages.some((page) => sameSegment(page, at)))?.at ?? leaf;
    expect(idOf(below)).not.toEqual(idOf(leaf));
    for (const at of [leaf, below]) stage.bucket.flip(stage.bucket.segment(at), at.offset + 2);
    expect((await stage.verify()).repairable).toEqual([idOf(below), idOf(leaf)]);
    const repaired = await stage.sync();
    expect(repaired.repair?.segments).toEqual([idOf(below), idOf(leaf)]);
    await stage.expectWhole(repaired.point);
  });

  it('that can be read nowhere is met by the run itself, which sends that disk again and says why', async () => {
    const first = await stage.sync();
    const { pages } = await stage.bucket.layout(first.point, 'system');
    const root = pages[0];
    const leaf = pages.at(-1);
    if (root === undefined || leaf === undefined) throw new Error('no pages');
    stage.bucket.flip(stage.bucket.segment(leaf), leaf.offset + 2);
    stage.withState((state) => state.clearPages());
    stage.machine.disks.get('system')?.write(39 * block, randomBytes(block));
    const repaired = await stage.sync();
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
    await stage.expectWhole(repaired.point);
    await expectLost([first.point]);
    const next = await stage.sync();
    expect(next.repair).toBeNull();
    await stage.expectWhole(next.point);
  });

  it('of a disk that is gone does not keep the others from being protected', async () => {
    const first = await stage.sync();
    const { pages } = await stage.bucket.layout(first.point, 'data');
    for (const name of new Set(pages.map((page) => stage.bucket.segment(page)))) stage.bucket.remove(name);
    stage.withState((state) => state.clearPages());
    stage.machine.disks.delete('data');
    const { point, repair } = await stage.sync();
    expect(repair?.segments.length).toBeGreaterThan(0);
    await stage.expectWhole(point);
  });
});

describe('damage elsewhere', () => {
  it('to an attachment sends it again', async () => {
    const first = await stage.sync();
    const { chunks } = await stage.bucket.layout(first.point, 'system');
    const at = chunks[0] ?? { tenure: 0, number: 0, offset: 0 };
    stage.bucket.flip(stage.bucket.segment(at), at.offset + 9);
    await stage.verify();
    const repaired = await stage.sync();
    expect(repaired.repair?.resentAttachments).toEqual(['nvram']);
    await stage.expectWhole(repaired.point);
  });

  it('to the key record in force starts a new epoch and sends everything again', async () => {
    const first = await stage.sync();
    stage.bucket.flip(keyRecordName(stage.rig.machineId, 1, 0), 60);
    const repaired = await stage.sync();
    expect(Object.values(reasonsOf(repaired))).toEqual(
      Array.from({ length: 2 }, () => 'repair: the key record of epoch 1 is damaged or gone: everything is sent again'),
    );
    expect(repaired.repair).toMatchObject({
      resentBlocks: 71,
      resentAttachments: ['nvram'],
      hurtPoints: [first.point],
    });
    await stage.expectWhole(repaired.point);
    const next = await stage.sync();
    expect([reasonsOf(next), next.repair]).toEqual([{ system: '', data: '' }, null]);
  });

  it('is repaired by an agent that may not unwrap keys, too', async () => {
    const writeOnly = { access: 'write-only', provider: wrapOnly(stage.rig.provider) } as const;
    const first = await stage.sync(writeOnly);
    const { runs } = await stage.bucket.layout(first.point, 'data');
    const at = runs[0]?.at ?? { tenure: 0, number: 0, offset: 0 };
    stage.bucket.flip(stage.bucket.segment(at), at.offset + 1);
    await stage.verify();
    const repaired = await stage.sync(writeOnly);
    expect(reasonsOf(repaired).data).toBe('repair: 1 damaged segment');
    expect(repaired.repair?.resentDisks).toEqual([]);
    await stage.expectWhole(repaired.point);
  });
});

describe('a repair that does not end', () => {
  it('is taken up again by the next run', async () => {
    const first = await stage.sync();
    const { runs } = await stage.bucket.layout(first.point, 'system');
    const at = runs[0]?.at ?? { tenure: 0, number: 0, offset: 0 };
    stage.bucket.flip(stage.bucket.segment(at), at.offset + 1);
    await stage.verify();
    await expect(stage.sync({ target: withoutPublish(stage.rig.target, 'lost') })).rejects.toMatchObject({
      code: 'STORE_UNAVAILABLE',
    });
    expect(stage.withState((state) => state.damagedSegments)).toEqual([idOf(at)]);
    const repaired = await stage.sync();
    expect(repaired.repair?.segments).toEqual([idOf(at)]);
    await stage.expectWhole(repaired.point);
  });

  it('but was published without an answer is known to be done', async () => {
    const first = await stage.sync();
    const { runs } = await stage.bucket.layout(first.point, 'system');
    const at = runs[0]?.at ?? { tenure: 0, number: 0, offset: 0 };
    stage.bucket.flip(stage.bucket.segment(at), at.offset + 1);
    await stage.verify();
    await expect(stage.sync({ target: withoutPublish(stage.rig.target, 'unanswered') })).rejects.toMatchObject({
      code: 'STORE_UNAVAILABLE',
    });
    const next = await stage.sync();
    expect([reasonsOf(next), next.repair]).toEqual([{ system: '', data: '' }, null]);
    await stage.expectWhole(next.point);
  });
});

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
