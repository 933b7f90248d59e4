import { describe, expect, it } from 'vitest';
import type { DiskReader } from '../../../hypervisors/vsphere/disk-reader.ts';
import { OpenReaders, openDisksMax } from '../../../hypervisors/vsphere/open-readers.ts';

function readers() {
  const open = new Set<number>();
  const reader = (key: number, failing: boolean): DiskReader => ({
    capacityBytes: 512,
    read: async () => undefined,
    async *extents() {
      yield* [];
    },
    async [Symbol.asyncDispose]() {
      open.delete(key);
      if (failing) throw new Error(`disk ${key} did not close well`);
    },
  });
  const opening =
    (key: number, failing = false) =>
    async () => {
      open.add(key);
      return reader(key, failing);
    };
  return { open, opening };
}

describe('the disks that are open', () => {
  it('are all closed at the end, also where closing one of them fails', async () => {
    const { open, opening } = readers();
    const held = new OpenReaders();
    for (const key of [1, 2, 3]) (await held.hold(key, opening(key, key < 3)))[Symbol.dispose]();
    expect(open.size).toBe(3);
    await expect(held[Symbol.asyncDispose]()).rejects.toThrow('did not close well');
    expect([...open]).toEqual([]);
  });

  it('are few, but none that is being read is closed', async () => {
    const { open, opening } = readers();
    await using held = new OpenReaders();
    using inUse = await held.hold(0, opening(0));
    for (let key = 1; key <= 2 * openDisksMax; key++) (await held.hold(key, opening(key)))[Symbol.dispose]();
    expect([open.size, open.has(0), inUse.reader.capacityBytes]).toEqual([openDisksMax, true, 512]);
  });

  it('are opened again by the next reader where they did not open', async () => {
    await using held = new OpenReaders();
    const failed = held.hold(1, () => Promise.reject(new Error('port 902 is closed')));
    await expect(failed).rejects.toThrow('902');
    const { open, opening } = readers();
    (await held.hold(1, opening(1)))[Symbol.dispose]();
    expect([...open]).toEqual([1]);
  });
});
