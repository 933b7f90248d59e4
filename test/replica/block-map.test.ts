import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BlockMap, blockCountOf } from '../../replica/block-map.ts';
import { placesOf, runsOf } from '../../replica/leaf.ts';
import { MapWriter, type RecordPacker } from '../../replica/map-writer.ts';
import { segmentKey } from '../../replica/names.ts';
import { encodeInner, encodeLeaf, rootLevel } from '../../replica/page.ts';
import { UnitCount } from '../../replica/unit-count.ts';
import { timesTried } from '../lanes/quick.ts';
import {
  blockSize,
  byKey,
  contentOf,
  MapHistory,
  type MapPoint,
  type MapSettings,
  type MapStep,
  perSegment,
  reachableUnits,
  reopened,
} from './map-history.ts';
import { MemoryPacker, pageBytes } from './memory-segments.ts';

const signal = new AbortController().signal;

const anySettings: fc.Arbitrary<MapSettings> = fc.record({
  segmentBytes: fc.constantFrom(400, 3000, 20_000, 2 ** 20),
  pendingPagesMax: fc.constantFrom(0, 1, 3, 10, undefined),
  ownOverflow: fc.boolean(),
});

const anyBlocks = fc.oneof(
  fc.constantFrom(1, 63, 64, 65, 4095, 4096, 4097, 262_144, 262_145),
  fc.integer({ min: 1, max: 200 }),
  fc.integer({ min: 200, max: 20_000 }),
);

/** Places are given as parts of the disk, so that shrinking keeps them inside; many lie near its start and its end. */
const anyStep: fc.Arbitrary<MapStep> = anyBlocks.chain((blocks) => {
  const first = fc.oneof(
    fc.nat({ max: blocks - 1 }),
    fc.nat({ max: Math.min(blocks - 1, 130) }),
    fc.nat({ max: Math.min(blocks - 1, 130) }).map((back) => blocks - 1 - back),
  );
  const count = fc.oneof(fc.integer({ min: 1, max: 6 }), fc.integer({ min: 1, max: 200 }));
  const write = fc.record({ first, count, clear: fc.boolean() });
  return fc.array(write, { maxLength: 6 }).map((writes) => ({ blocks, writes }));
});

/** The map maps exactly the blocks of the picture, to exactly their bytes. */
async function expectPicture(point: MapPoint, history: MapHistory): Promise<void> {
  const map = reopened(point, history.segments);
  const seen = new Set<number>();
  for await (const run of map.runs(signal)) {
    const record = history.segments.readRecord(map.geometry, run);
    for (let i = 0; i < run.count; i++) {
      const block = run.first + i;
      const write = point.picture.get(block);
      expect(write, `block ${block} is mapped`).toBeDefined();
      const content = record.subarray((run.inside + i) * blockSize, (run.inside + i + 1) * blockSize);
      expect(Buffer.compare(content, contentOf(block, write ?? 0)), `block ${block}`).toBe(0);
      seen.add(block);
    }
  }
  expect(seen.size).toBe(point.picture.size);
}

/** From anywhere the next leaf is found, and from the end all of them. */
async function expectLeavesFound(point: MapPoint, history: MapHistory): Promise<void> {
  const map = reopened(point, history.segments);
  const leaves = [...new Set([...point.picture.keys()].map((block) => Math.floor(block / 64)))].sort((a, b) => a - b);
  for (const from of [0, ...leaves, ...leaves.map((leaf) => leaf + 1), 2 ** 30])
    expect(await map.leafFrom(from, signal)).toBe(leaves.find((leaf) => leaf >= from) ?? null);
  const backwards: number[] = [];
  for await (const { firstBlock } of map.leavesFromTheEnd(signal)) backwards.push(firstBlock / 64);
  expect(backwards).toEqual(leaves.toReversed());
}

/** Each page's bytes are what encoding its content gives, and none is empty or outside the disk. */
async function expectCanonical(point: MapPoint, history: MapHistory): Promise<void> {
  const map = reopened(point, history.segments);
  expect(map.level).toBe(rootLevel(blockCountOf(map.geometry)));
  if (map.root === null) expect(point.picture.size).toBe(0);
  for await (const { ref, page, firstBlock } of map.pages(signal)) {
    expect(firstBlock).toBeLessThan(blockCountOf(map.geometry));
    const bytes = await pageBytes(history.segments, map.geometry, { ref, level: page.level, firstBlock });
    const again = 'runs' in page ? encodeLeaf(firstBlock, page.runs) : encodeInner(page.level, page.children).bytes;
    expect(Buffer.compare(bytes, again)).toBe(0);
    if ('runs' in page) expect(page.runs.length).toBeGreaterThan(0);
    else expect(page.children.length).toBeGreaterThan(0);
  }
}

/** Births and deaths are what a walk over both points finds. */
async function expectCounts(before: MapPoint, after: MapPoint, known: Set<string>, history: MapHistory): Promise<void> {
  const old = await reachableUnits(before, history.segments);
  const now = await reachableUnits(after, history.segments);
  const used = perSegment(now);
  const births = [...used.keys()].filter((key) => !known.has(key));
  expect(after.unborn.filter((key) => !known.has(key))).toEqual([]);
  expect(after.births.map(segmentKey).sort()).toEqual([...births].sort());
  const dead = perSegment([...old].filter((unit) => !now.has(unit)));
  for (const birth of after.births) {
    const unused = birth.units - (used.get(segmentKey(birth)) ?? 0);
    if (unused > 0) dead.set(segmentKey(birth), unused);
    known.add(segmentKey(birth));
  }
  expect(new Map([...byKey(after.deaths)].sort())).toEqual(new Map([...dead].sort()));
}

describe('a block map', () => {
  it('says after every publish what was written, counts what died, and leaves older maps as they were', async () => {
    await fc.assert(
      fc.asyncProperty(anySettings, fc.array(anyStep, { minLength: 1, maxLength: 5 }), async (settings, steps) => {
        const history = new MapHistory(settings);
        const known = new Set<string>();
        for (const step of steps) {
          const before = history.newest;
          await history.publish(step);
          expect(history.newest.unborn).toEqual([]);
          await expectCounts(before, history.newest, known, history);
          await expectCanonical(history.newest, history);
          await expectLeavesFound(history.newest, history);
        }
        for (const point of history.points) await expectPicture(point, history);
        const all = perSegment(await reachableUnits(history.newest, history.segments));
        expect(new Map([...byKey(await history.dropAll())].sort())).toEqual(new Map([...all].sort()));
      }),
      { numRuns: timesTried(150) },
    );
  }, 60_000);
});

describe('a disk that changes its size', () => {
  const settings: MapSettings = { segmentBytes: 3000, pendingPagesMax: 0, ownOverflow: true };
  const all = (blocks: number): MapStep => ({ blocks, writes: [{ first: 0, count: blocks, clear: false }] });

  it.each([
    ['inside a leaf', 100, 70],
    ['to a whole leaf', 100, 64],
    ['by a level', 4200, 40],
    ['by a level and inside a leaf', 4200, 4090],
  ])('shrinks %s, and what it lost reads as zero when it grows again', async (_, large, small) => {
    const history = new MapHistory(settings);
    await history.publish(all(large));
    await history.publish({ blocks: small, writes: [] });
    await history.publish({ blocks: large, writes: [] });
    const mapped: number[] = [];
    for await (const run of history.newest.map.runs(signal)) {
      for (let i = 0; i < run.count; i++) mapped.push(run.first + i);
    }
    expect(mapped).toEqual(Array.from({ length: small }, (_block, i) => i));
    for (const point of history.points) await expectPicture(point, history);
  });

  it('keeps every page below the new root when it grows by several levels', async () => {
    const history = new MapHistory(settings);
    await history.publish(all(50));
    const before = await reachableUnits(history.newest, history.segments);
    await history.publish({ blocks: 262_145, writes: [] });
    const now = await reachableUnits(history.newest, history.segments);
    expect([...before].filter((unit) => !now.has(unit))).toEqual([]);
    expect(now.size).toBe(before.size + 3);
    expect(history.newest.deaths).toEqual([]);
  });
});

it('a page that maps blocks beyond the end of its disk is refused', async () => {
  const history = new MapHistory({ segmentBytes: 3000, pendingPagesMax: undefined, ownOverflow: false });
  const read = async (written: number, capacity: number): Promise<void> => {
    await history.publish({ blocks: written, writes: [{ first: 0, count: written, clear: false }] });
    const { geometry, root } = history.newest.map;
    const map = new BlockMap({ ...geometry, capacityBytes: capacity * blockSize }, root, history.segments);
    for await (const _ of map.pages(signal));
  };
  await expect(read(40, 40)).resolves.toBeUndefined();
  await expect(read(40, 39)).rejects.toMatchObject({ code: 'FORMAT_INVALID' });
  await expect(read(200, 200)).resolves.toBeUndefined();
  await expect(read(200, 192)).rejects.toMatchObject({ code: 'FORMAT_INVALID' });
  await expect(read(200, 199)).rejects.toMatchObject({ code: 'FORMAT_INVALID' });
});

describe('a map writer', () => {
  it('leaves a map alone that nothing changes: the root stays the same page, nothing is born', async () => {
    const history = new MapHistory({ segmentBytes: 3000, pendingPagesMax: 2, ownOverflow: false });
    await history.publish({ blocks: 5000, writes: [{ first: 0, count: 300, clear: false }] });
    const { root } = history.newest.map;
    await history.publish({ blocks: 5000, writes: [{ first: 4990, count: 10, clear: true }] });
    expect(history.newest.map.root).toEqual(root);
    expect(history.newest.births).toEqual([]);
    expect(history.newest.deaths).toEqual([]);
  });

  it('writes one page per level for one block', async () => {
    const history = new MapHistory({ segmentBytes: 2 ** 20, pendingPagesMax: undefined, ownOverflow: false });
    await history.publish({ blocks: 262_144, writes: [{ first: 0, count: 1000, clear: false }] });
    await history.publish({ blocks: 262_144, writes: [{ first: 500, count: 1, clear: false }] });
    expect(history.newest.births.map((birth) => birth.units).reduce((a, b) => a + b)).toBe(1 + 3);
    expect(history.newest.deaths.map((death) => death.units).reduce((a, b) => a + b)).toBe(1 + 3);
  });

  it('refuses leaves out of order and blocks beyond the end of the disk', async () => {
    const history = new MapHistory({ segmentBytes: 3000, pendingPagesMax: 2, ownOverflow: false });
    await history.publish({ blocks: 200, writes: [{ first: 0, count: 200, clear: false }] });
    const { map } = history.newest;
    const packer = new MemoryPacker(history.segments, 3000, () => undefined);
    const writer = await MapWriter.start(
      { ...map.geometry, capacityBytes: 100 * blockSize },
      map,
      new UnitCount(),
      packer,
      signal,
    );
    const beyond = await map.leafRuns(1, signal);
    await writer.replaceLeaf(0, [], signal);
    await expect(writer.replaceLeaf(0, [], signal)).rejects.toThrow('leaf 0 after leaf 0');
    await expect(writer.replaceLeaf(1, beyond, signal)).rejects.toThrow('beyond the end');
  });

  it('refuses a packer whose open segment changes while a page waits for digests', async () => {
    const history = new MapHistory({ segmentBytes: 2 ** 20, pendingPagesMax: undefined, ownOverflow: false });
    await history.publish({ blocks: 200, writes: [{ first: 0, count: 200, clear: false }] });
    const { map } = history.newest;
    const packer = new MemoryPacker(history.segments, 2 ** 20, () => undefined);
    const shared: RecordPacker = {
      room: (bytes) => packer.room(bytes),
      pageDigests: (id) => packer.pageDigests(id),
      add: (record) => {
        const at = packer.add(record);
        return record.blockCount === 64 ? at : { ...at, number: 99 };
      },
    };
    const writer = await MapWriter.start(map.geometry, map, new UnitCount(), shared, signal);
    await writer.replaceLeaf(0, [], signal);
    await writer.replaceLeaf(1, runsOf(placesOf(await map.leafRuns(1, signal), 64).fill(null, 0, 3), 64), signal);
    await expect(writer.finish(shared, signal)).rejects.toThrow('the open segment changed');
  });
});
