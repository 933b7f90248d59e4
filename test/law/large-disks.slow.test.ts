import { expect, test } from 'vitest';
import { BlockMap } from '../../replica/block-map.ts';
import type { DiskState } from '../../replica/manifest.ts';
import { MemoryStore, openMemoryTarget } from '../fakes/memory-target.ts';
import { plainStyle } from '../fakes/model-disk.ts';
import { ModelMachine } from '../fakes/model-machine.ts';
import type { SparseBytes } from '../fakes/sparse-bytes.ts';
import { ReplicaRig } from '../rig/replica-rig.ts';
import type { RigReader } from '../rig/rig-reader.ts';
import { RigWorkers } from '../rig/rig-workers.ts';
import { filled } from './guest.ts';
import { expectCountsOf, type UnitUsage, usageOf } from './unit-usage.ts';

const mebibyte = 2 ** 20;
const tebibyte = 2 ** 40;

/** Too large to restore into memory: the mapped blocks are compared one by one, and must be all that is not zero. */
async function expectMapped(disk: DiskState, content: SparseBytes, reader: RigReader): Promise<void> {
  const written = new Map<number, Uint8Array>();
  const sink = {
    description: 'blocks in memory',
    startsZeroed: true,
    mayHoldContent: false,
    direct: null,
    write: async (offset: number, bytes: Uint8Array) => void written.set(offset, bytes.slice()),
    read: () => Promise.reject(new Error('nothing is read back')),
    complete: () => Promise.resolve(),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
  await reader.restoreInto(disk, sink);
  let mapped = 0;
  for (const [offset, bytes] of written) {
    const expected = new Uint8Array(bytes.length);
    content.read(offset, expected);
    expect(Buffer.compare(bytes, expected), `${disk.label} from byte ${offset} on`).toBe(0);
    mapped += Math.ceil(bytes.length / disk.blockSize);
  }
  expect(mapped).toBe(blocksWithData(disk, content));
}

function blocksWithData(disk: DiskState, content: SparseBytes): number {
  const blocks = new Set<number>();
  for (const { offset, length, zero } of content.pieces(0, disk.capacityBytes, 65_536)) {
    const end = zero ? offset : offset + length;
    for (let block = Math.floor(offset / disk.blockSize); block * disk.blockSize < end; block++) blocks.add(block);
  }
  return blocks.size;
}

test('disks of every map level, of each block size, through growth, discards and shrinking', async () => {
  await using workers = new RigWorkers();
  const store = new MemoryStore();
  await using rig = await ReplicaRig.create(openMemoryTarget(store), { workers, inMemory: true });
  const machine = new ModelMachine();
  const sizes = [
    4 * mebibyte,
    4 * mebibyte + 1,
    256 * mebibyte,
    256 * mebibyte + 1,
    16_384 * mebibyte + 512,
    5 * tebibyte,
  ];
  const style = { ...plainStyle, grain: 65_536 };
  sizes.forEach((size, i) => {
    const disk = machine.addDisk(`disk-${i}`, size, style);
    for (const at of [0, size / 3, size - 70_000]) disk.write(Math.floor(at), filled(70_000, i, true));
  });
  const usages = new Map<number, UnitUsage>();
  const expectPoint = async (): Promise<readonly DiskState[]> => {
    const { point, manifest } = await rig.protect(machine);
    using reader = await rig.open();
    for (const disk of manifest.disks) {
      const content = machine.newest.get(disk.label);
      if (content !== undefined) await expectMapped(disk, content, reader);
    }
    usages.set(point, await usageOf(manifest, reader));
    expectCountsOf(reader.replica.chain.state, usages);
    return manifest.disks;
  };

  const first = await expectPoint();
  const level = (disk: DiskState): number => new BlockMap(disk, null, { readPage: never, prefetch: never }).level;
  expect(first.map(level)).toEqual([0, 1, 1, 2, 3, 4]);
  expect(first.map(({ blockSize }) => blockSize / 65_536)).toEqual([1, 1, 1, 1, 1, 2]);

  for (const [i, size] of sizes.entries()) machine.disks.get(`disk-${i}`)?.resize(Math.min(size * 65, 6 * tebibyte));
  machine.disks.get('disk-3')?.write(2_000 * mebibyte, filled(10, 7, true));
  const grown = await expectPoint();
  expect(grown.map(level)).toEqual([2, 2, 3, 3, 4, 4]);
  expect(grown.map(({ generation }) => generation)).toEqual([1, 1, 1, 1, 1, 1]);

  machine.disks.get('disk-4')?.resize(5 * tebibyte);
  machine.disks.get('disk-5')?.discard(0, 4 * tebibyte);
  const outgrown = await expectPoint();
  expect(outgrown.map(({ generation }) => generation)).toEqual([1, 1, 1, 1, 2, 1]);
  expect(outgrown[4]?.generationReason).toMatch(/outgrew blocks of 65536 bytes/);

  for (const disk of machine.disks.values()) disk.resize(100_000);
  const shrunk = await expectPoint();
  expect(shrunk.map(level)).toEqual([0, 0, 0, 0, 0, 0]);
});

function never(): Promise<never> {
  return Promise.reject(new Error('no page is read'));
}
