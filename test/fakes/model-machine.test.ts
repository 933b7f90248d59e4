import { randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ChangeTrackingLost } from '../../hypervisors/errors.ts';
import type { Extent, ReferencePoint } from '../../hypervisors/hypervisor.ts';
import { describeHypervisorContract } from '../contract/hypervisor.ts';
import { timesTried } from '../lanes/quick.ts';
import { ModelDisk, type ModelDiskStyle, plainStyle } from './model-disk.ts';
import { ModelMachine } from './model-machine.ts';

const signal = new AbortController().signal;
const open = (): Promise<void> => Promise.resolve();

const styles: readonly ModelDiskStyle[] = (['left-out', 'listed', 'as-data'] as const).flatMap((zeros) =>
  [true, false].map((tracks) => ({ grain: 4_099, zeros, tracks, overReports: zeros === 'listed' })),
);

for (const style of styles) {
  describeHypervisorContract(`a model machine (zeros ${style.zeros}, tracks ${style.tracks})`, async () => {
    const machine = new ModelMachine('web-1');
    machine.addDisk('root', 300_001, style).write(0, randomBytes(300_001));
    machine.addDisk('data', 5_000_000, style).write(4_000_000, randomBytes(70_000));
    return {
      connection: machine,
      machineName: 'web-1',
      content: async () => new Map([...machine.disks].map(([label, { content }]) => [label, content.bytes()])),
      write: async (label, offset, bytes) => machine.disks.get(label)?.write(offset, bytes),
      [Symbol.asyncDispose]: () => machine[Symbol.asyncDispose](),
    };
  });
}

async function extentsOf(disk: ModelDisk, since: ReferencePoint): Promise<readonly Extent[]> {
  const extents: Extent[] = [];
  for await (const extent of disk.freeze(open).changedExtents(since, signal)) extents.push(extent);
  return extents;
}

/** A copy of `old` with everything that the extents name replaced by what is on the disk now. */
function patched(old: Uint8Array, disk: ModelDisk, extents: readonly Extent[]): Uint8Array {
  const copy = old.slice();
  for (const { offset, length, zero } of extents) {
    if (zero) copy.fill(0, offset, offset + length);
    else disk.content.read(offset, copy.subarray(offset, offset + length));
  }
  return copy;
}

describe('a model disk', () => {
  it('reports every byte that changed since its reference point, zero where it says zero', async () => {
    const capacity = 200_000;
    const range = fc.record({ offset: fc.nat(capacity - 1), length: fc.integer({ min: 1, max: 90_000 }) });
    const change = fc.record({ range, discard: fc.boolean(), seed: fc.integer({ min: 1, max: 255 }) });
    await fc.assert(
      fc.asyncProperty(
        fc.array(change),
        fc.array(change),
        fc.constantFrom(...styles.filter(({ tracks }) => tracks)),
        async (before, after, style) => {
          const disk = new ModelDisk('root', capacity, style);
          const apply = (changes: typeof before): void => {
            for (const { range: at, discard, seed } of changes) {
              const length = Math.min(at.length, capacity - at.offset);
              if (discard) disk.discard(at.offset, length);
              else disk.write(at.offset, new Uint8Array(length).fill(seed));
            }
          };
          apply(before);
          const old = disk.content.bytes();
          const since = disk.freeze(open).referencePoint;
          apply(after);
          const extents = await extentsOf(disk, since);
          expect(Buffer.compare(patched(old, disk, extents), disk.content.bytes())).toBe(0);
          const full = patched(new Uint8Array(capacity), disk, await extentsOf(disk, null));
          expect(Buffer.compare(full, disk.content.bytes())).toBe(0);
        },
      ),
      { numRuns: timesTried(100) },
    );
  });

  it('refuses to say what changed once tracking is lost, after as many extents as asked', async () => {
    const disk = new ModelDisk('root', 200_000, plainStyle);
    const since = disk.freeze(open).referencePoint;
    for (const at of [0, 50_000, 100_000]) disk.write(at, new Uint8Array(100).fill(1));
    disk.loseTracking(2);
    const seen: Extent[] = [];
    const walk = async (): Promise<void> => {
      for await (const extent of disk.freeze(open).changedExtents(since, signal)) seen.push(extent);
    };
    await expect(walk()).rejects.toThrow(ChangeTrackingLost);
    expect(seen).toHaveLength(2);
    await expect(extentsOf(disk, since)).rejects.toThrow(ChangeTrackingLost);
    expect(await extentsOf(disk, disk.freeze(open).referencePoint)).toEqual([]);
  });

  it('forgets what a smaller disk lost', () => {
    const disk = new ModelDisk('root', 200_000, plainStyle);
    disk.write(0, new Uint8Array(200_000).fill(1));
    disk.resize(70_001);
    disk.resize(200_000);
    expect(disk.content.bytes().lastIndexOf(1)).toBe(70_000);
  });
});
