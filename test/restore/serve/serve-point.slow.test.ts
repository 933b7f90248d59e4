import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { baseAllocation, type NbdDisk, readsAsZero } from '../../../hypervisors/nbd/nbd-disk.ts';
import { StoreUnavailable } from '../../../storage-targets/errors.ts';
import { ModelMachine } from '../../fakes/model-machine.ts';
import { collect, readAll } from '../../hypervisors/nbd/nbd-reading.ts';
import { filled } from '../../law/guest.ts';
import { ReplicaRig } from '../../rig/replica-rig.ts';
import { RigBucket } from '../../rig/rig-bucket.ts';
import { RigWorkers } from '../../rig/rig-workers.ts';
import { withFaults } from '../../storage-targets/faulty-target.ts';
import { servePointOf } from './serve-rig.ts';

const mebibyte = 2 ** 20;
const blockSize = 65_536;
const never = new AbortController().signal;
/** The last block is cut off by the end of the disk. */
const systemBytes = 20 * mebibyte + 1000;

let workers: RigWorkers;
let life: Awaited<ReturnType<typeof lifeOfMachine>>;
let rig: ReplicaRig;
beforeAll(async () => {
  workers = new RigWorkers();
  life = await lifeOfMachine();
  rig = life.rig;
});
afterAll(async () => {
  await rig[Symbol.asyncDispose]();
  await workers[Symbol.asyncDispose]();
});

/** Two points of a machine whose disks are written, discarded, resized, added and empty; with what each disk held. */
async function lifeOfMachine() {
  const rig = await ReplicaRig.create(undefined, { workers, inMemory: true });
  const machine = new ModelMachine();
  const contents = new Map<number, ReadonlyMap<string, Buffer>>();
  const system = machine.addDisk('system', systemBytes);
  const data = machine.addDisk('däta/1', 9 * mebibyte);
  machine.addDisk('empty', 3 * mebibyte + 7);
  system.write(0, filled(systemBytes, 1, true));
  system.discard(4 * mebibyte, 5 * mebibyte);
  data.write(mebibyte, filled(2 * mebibyte, 2, false));
  const publish = async () => {
    const { point } = await rig.protect(machine, { segmentBytes: 4 * mebibyte });
    const disks = [...machine.newest].map(([label, bytes]) => {
      const content = Buffer.alloc(bytes.capacityBytes);
      bytes.read(0, content);
      return [label, content] as const;
    });
    contents.set(point, new Map(disks));
    return point;
  };
  const first = await publish();
  for (let i = 0; i < 12; i++) system.write(i * 1_700_000, filled(3000 * (i + 1), 10 + i, true));
  data.resize(12 * mebibyte + 512);
  data.write(11 * mebibyte, filled(mebibyte + 512, 3, true));
  system.discard(12 * mebibyte, mebibyte);
  const second = await publish();
  return { rig, first, second, contents };
}

function contentOf(point: number, label: string): Buffer {
  const content = life.contents.get(point)?.get(label);
  if (content === undefined) throw new Error(`no content of ${label}`);
  return content;
}

describe('a served recovery point', () => {
  it('reads as the disks were, whole and in any range, at the old point and the new one', async () => {
    for (const point of [life.first, life.second]) {
      await using served = await servePointOf(rig, point);
      for (const label of ['system', 'däta/1', 'empty']) {
        const expected = contentOf(point, label);
        await using disk = await served.open(label);
        expect(disk.capacityBytes).toBe(expected.length);
        expect(disk.can.write).toBe(false);
        await expectRandomRanges(disk, expected, 12);
        expect(Buffer.compare(await readAll(disk), expected)).toBe(0);
        await expectZeroesWhereItSays(disk, expected);
      }
      expect(served.damage).toEqual([]);
    }
  });

  it('holes cost no request, and are told as holes', async () => {
    await using served = await servePointOf(rig, life.first);
    await using empty = await served.open('empty');
    expect((await readAll(empty)).every((byte) => byte === 0)).toBe(true);
    await using system = await served.open('system');
    const hole = Buffer.alloc(2 * mebibyte, 1);
    await system.read(4 * mebibyte + 65_536, hole, never);
    expect(hole.every((byte) => byte === 0)).toBe(true);
    expect(served.server.served).toMatchObject({ fetchedBytes: 0, ranges: 0 });
    const extents = await collect(system.extents(baseAllocation, 0, systemBytes, never));
    expect(extents.map(({ length, flags }) => [length, flags & readsAsZero])).toEqual([
      [4 * mebibyte, 0],
      [5 * mebibyte, readsAsZero],
      [systemBytes - 9 * mebibyte, 0],
    ]);
  });

  it('what is read again comes from memory; what many read at once is fetched once', async () => {
    await using served = await servePointOf(rig, life.first);
    await using disk = await served.open('system');
    const expected = contentOf(life.first, 'system');
    const parts = await Promise.all(Array.from({ length: 30 }, () => readRange(disk, 10 * mebibyte, 4096)));
    for (const part of parts)
      expect(Buffer.compare(part, expected.subarray(10 * mebibyte, 10 * mebibyte + 4096))).toBe(0);
    const { ranges, fetchedBytes } = served.server.served;
    expect(ranges).toBe(1);
    // Noise does not compress: one record, and nothing beside it.
    expect(fetchedBytes).toBeLessThan(5 * blockSize);
    await readRange(disk, 10 * mebibyte + 4096, 8192);
    expect(served.server.served.ranges).toBe(1);
  });

  it('records that lie side by side are fetched together', async () => {
    await using served = await servePointOf(rig, life.first);
    await using disk = await served.open('system');
    expect(Buffer.compare(await readAll(disk), contentOf(life.first, 'system'))).toBe(0);
    const { ranges, fetchedBytes } = served.server.served;
    // 15 MiB in records of 256 KiB.
    expect(ranges).toBeLessThan(40);
    expect(fetchedBytes).toBeLessThan(1.05 * 15 * mebibyte);
  });

  it('random reads fetch their records alone; reads in a row are read ahead', async () => {
    {
      await using served = await servePointOf(rig, life.first);
      await using disk = await served.open('system');
      for (const mib of [3, 17, 1, 11, 14]) await readRange(disk, mib * mebibyte, 4096);
      expect(served.server.served.fetchedBytes).toBeLessThan(5 * 5 * blockSize);
    }
    await using served = await servePointOf(rig, life.first);
    await using disk = await served.open('system');
    for (let at = 9 * mebibyte; at < 20 * mebibyte; at += 65_536) await readRange(disk, at, 65_536);
    // One by one it would have been a request for each of 44 records.
    expect(served.server.served.ranges).toBeLessThan(25);
  });

  it('keeps no more than its bound, and is right all the same', async () => {
    await using served = await servePointOf(rig, life.second, { cacheBytes: 2 * mebibyte });
    await using disk = await served.open('system');
    const expected = contentOf(life.second, 'system');
    for (let round = 0; round < 2; round++) expect(Buffer.compare(await readAll(disk), expected)).toBe(0);
    await expectRandomRanges(disk, expected, 12);
    expect(served.server.cache.bytesMax).toBe(2 * mebibyte);
    expect(served.server.cache.heldBytes).toBe(2 * mebibyte);
  });

  it('a damaged record fails its own blocks with EIO, by name, and nothing else', async () => {
    await using bucket = await RigBucket.copyOf(rig);
    const { runs } = await bucket.layout(life.first, 'system');
    const hurt = runs.find(({ first }) => first * blockSize >= 10 * mebibyte);
    if (hurt === undefined) throw new Error('no run there');
    bucket.flip(bucket.segment(hurt.at), hurt.at.offset + 100);
    await using served = await servePointOf(rig, life.first, { target: bucket.target });
    await using disk = await served.open('system');
    const expected = contentOf(life.first, 'system');
    const { failed, right } = await readByBlock(disk, expected);
    const blocks = Array.from({ length: hurt.count }, (_, i) => hurt.first + i);
    expect(failed).toEqual(blocks);
    expect(right).toBe(Math.ceil(systemBytes / blockSize) - hurt.count);
    const read = readRange(disk, hurt.first * blockSize, 10);
    await expect(read).rejects.toMatchObject({ errno: 'EIO' });
    await expect(read).rejects.toThrow(`system: blocks ${hurt.first} to ${hurt.first + hurt.count - 1} can't be read`);
    await expect(read).rejects.toThrow(bucket.segment(hurt.at));
    // Though it was read many times.
    expect(served.damage).toHaveLength(1);
    expect(served.damage[0]).toContain(
      `system ${hurt.first}..${hurt.first + hurt.count - 1}: ${bucket.segment(hurt.at)}`,
    );
  });

  it.for(['missing', 'cut'] as const)(
    'a segment that is %s fails what it held, and what is left of it is served',
    async (how) => {
      const life = await lifeOfMachine();
      await using rig = life.rig;
      await using bucket = await RigBucket.copyOf(rig);
      const { runs } = await bucket.layout(life.first, 'system');
      const last = runs.filter(({ at }) => at.number === runs[0]?.at.number && at.tenure === runs[0]?.at.tenure).at(-1);
      if (last === undefined) throw new Error('no run');
      const object = bucket.segment(last.at);
      if (how === 'missing') bucket.remove(object);
      else bucket.truncate(object, last.at.offset + 1000);
      await using served = await servePointOf(rig, life.first, { target: bucket.target });
      await using disk = await served.open('system');
      const { failed } = await readByBlock(disk, contentOf(life.first, 'system'));
      const hurt = runs.filter(
        ({ at }) => bucket.segment(at) === object && (how === 'missing' || at.offset >= last.at.offset),
      );
      expect(failed).toEqual(hurt.flatMap(({ first, count }) => Array.from({ length: count }, (_, i) => first + i)));
      expect(served.damage.join('\n')).toContain(object);
    },
  );

  it('a damaged page of the map fails what it maps, and the other disk is served', async () => {
    await using bucket = await RigBucket.copyOf(rig);
    const { pages } = await bucket.layout(life.first, 'system');
    const leaf = pages.at(-1);
    if (leaf === undefined) throw new Error('no page');
    bucket.flip(bucket.segment(leaf), leaf.offset + 20);
    await using served = await servePointOf(rig, life.first, { target: bucket.target });
    await using disk = await served.open('system');
    const { failed } = await readByBlock(disk, contentOf(life.first, 'system'));
    expect(failed.length).toBeGreaterThan(0);
    expect(failed[0]).toBe(Math.floor((failed[0] ?? 0) / 64) * 64);
    expect(served.damage[0]).toContain(bucket.segment(leaf));
    await expect(collect(disk.extents(baseAllocation, 0, systemBytes, never))).rejects.toMatchObject({ errno: 'EIO' });
    await using other = await served.open('däta/1');
    expect(Buffer.compare(await readAll(other), contentOf(life.first, 'däta/1'))).toBe(0);
  });

  it('a store that is away fails reads, and nothing is remembered of it when it is back', async () => {
    let away = false;
    const error = new StoreUnavailable('the store is away');
    const target = withFaults(rig.target, (operation) =>
      operation === 'get' && away ? { how: 'refuse', error } : null,
    );
    await using served = await servePointOf(rig, life.second, { target });
    await using disk = await served.open('system');
    const expected = contentOf(life.second, 'system');
    await readRange(disk, 0, 4096);
    away = true;
    await expect(readRange(disk, 15 * mebibyte, 4096)).rejects.toThrow('the store is away');
    // What is in memory is served all the same.
    expect(Buffer.compare(await readRange(disk, 0, 4096), expected.subarray(0, 4096))).toBe(0);
    away = false;
    expect(Buffer.compare(await readAll(disk), expected)).toBe(0);
    expect(served.damage).toEqual([]);
  });

  it('leaves of the map that lie together cost one request', async () => {
    let requests = 0;
    const target = withFaults(rig.target, (operation) => {
      if (operation === 'get') requests += 1;
      return null;
    });
    await using served = await servePointOf(rig, life.first, { target });
    await using disk = await served.open('system');
    const before = requests;
    // Five leaves of 4 MiB, the second of which maps nothing.
    for (const mib of [1, 9, 13, 17]) await readRange(disk, mib * mebibyte, 4096);
    const { ranges } = served.server.served;
    // The root, the leaves, and of each segment its first bytes.
    expect(requests - before - ranges).toBeLessThanOrEqual(2 + ranges);
    const afterwards = requests;
    await collect(disk.extents(baseAllocation, 0, systemBytes, never));
    expect(requests).toBe(afterwards);
  });

  it('a client that leaves while the store is silent is gone at once', async () => {
    const answer = Promise.withResolvers<void>();
    let silent = false;
    const silentTarget = {
      ...rig.target,
      get: async (...args: Parameters<typeof rig.target.get>) => {
        if (silent) await answer.promise;
        return rig.target.get(...args);
      },
    };
    await using served = await servePointOf(rig, life.first, { target: silentTarget });
    const disk = await served.open('system');
    silent = true;
    const read = readRange(disk, 15 * mebibyte, 4096).catch((error: unknown) => error);
    await disk[Symbol.asyncDispose]();
    expect(await read).toMatchObject({ code: 'NBD_CONNECTION_LOST' });
    await expect.poll(() => served.server.server.connections).toBe(0);
    expect(served.server.server.heldBytes).toBe(0);
    answer.resolve();
  });

  it('a client that leaves in the middle takes nobody along', async () => {
    await using served = await servePointOf(rig, life.first);
    const leaver = await served.open('system');
    await using stayer = await served.open('system');
    const expected = contentOf(life.first, 'system');
    const left = readAll(leaver).catch((error: unknown) => error);
    const stayed = readAll(stayer);
    await leaver[Symbol.asyncDispose]();
    expect(await left).toMatchObject({ code: 'NBD_CONNECTION_LOST' });
    expect(Buffer.compare(await stayed, expected)).toBe(0);
    await expect.poll(() => served.server.server.connections).toBe(2);
    expect(served.server.server.heldBytes).toBe(0);
  });
});

async function expectRandomRanges(disk: NbdDisk, expected: Buffer, numRuns: number): Promise<void> {
  const range = fc
    .tuple(
      fc.nat(expected.length - 1),
      fc.oneof(fc.integer({ min: 1, max: 5000 }), fc.integer({ min: 1, max: 3 * mebibyte })),
    )
    .map(([offset, length]) => ({ offset, length: Math.min(length, expected.length - offset) }));
  await fc.assert(
    fc.asyncProperty(fc.array(range, { minLength: 1, maxLength: 5 }), async (ranges) => {
      const found = await Promise.all(ranges.map(({ offset, length }) => readRange(disk, offset, length)));
      ranges.forEach(({ offset, length }, i) => {
        expect(Buffer.compare(found[i] ?? Buffer.alloc(0), expected.subarray(offset, offset + length))).toBe(0);
      });
    }),
    { numRuns },
  );
}

async function expectZeroesWhereItSays(disk: NbdDisk, expected: Buffer): Promise<void> {
  let end = 0;
  for await (const { offset, length, flags } of disk.extents(baseAllocation, 0, expected.length, never)) {
    expect(offset).toBe(end);
    end += length;
    if ((flags & readsAsZero) !== 0) expect(expected.subarray(offset, end).every((byte) => byte === 0)).toBe(true);
  }
  expect(end).toBe(expected.length);
}

/** Numbers of the blocks that could not be read, and how many were right; others are an error. */
async function readByBlock(disk: NbdDisk, expected: Buffer): Promise<{ failed: number[]; right: number }> {
  const failed: number[] = [];
  let right = 0;
  for (let block = 0; block * blockSize < expected.length; block++) {
    const slice = expected.subarray(block * blockSize, (block + 1) * blockSize);
    const found = await readRange(disk, block * blockSize, slice.length).catch(() => null);
    if (found === null) failed.push(block);
    else {
      expect(Buffer.compare(found, slice)).toBe(0);
      right += 1;
    }
  }
  return { failed, right };
}

async function readRange(disk: NbdDisk, offset: number, length: number): Promise<Buffer> {
  const into = Buffer.alloc(length);
  await disk.read(offset, into, never);
  return into;
}
