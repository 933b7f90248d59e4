import { expect, it } from 'vitest';
import { zerosThatCount } from '../../../agent/protect/zeros-that-count.ts';
import type { Extent } from '../../../hypervisors/hypervisor.ts';

const blockSize = 2 ** 20;
const leafBytes = 64 * blockSize;
const tebibyte = 2 ** 40;
const never = new AbortController().signal;

/** A map with these leaves, and how often it was asked. */
function mapWith(...leaves: readonly number[]) {
  const map = {
    asked: 0,
    geometry: { diskId: new Uint8Array(16), blockSize, capacityBytes: 64 * tebibyte },
    leafFrom: async (leafIndex: number) => {
      map.asked++;
      return leaves.find((leaf) => leaf >= leafIndex) ?? null;
    },
  };
  return map;
}

async function listed(map: ReturnType<typeof mapWith>, ...extents: readonly Extent[]): Promise<readonly Extent[]> {
  async function* given() {
    yield* extents;
  }
  const passed: Extent[] = [];
  for await (const extent of zerosThatCount(given(), map, never)) passed.push(extent);
  return passed;
}

it('free space costs as much as the map has leaves in it, and not as it is large', async () => {
  const map = mapWith(3, 4, 500_000);
  const free = { offset: leafBytes + 5, length: 60 * tebibyte, zero: true };
  expect(await listed(map, free)).toEqual(
    [3, 4, 500_000].map((leaf) => ({ offset: leaf * leafBytes, length: leafBytes, zero: true })),
  );
  expect(map.asked).toBe(4);
});

it('parts of a leaf stay what they were, and data is passed on as it is', async () => {
  const map = mapWith(0, 2);
  const data = { offset: 7, length: 3, zero: false };
  const inside = { offset: 100, length: 1_000, zero: true };
  const across = { offset: leafBytes - 10, length: leafBytes + 30, zero: true };
  expect(await listed(map, data, inside, across)).toEqual([
    data,
    inside,
    { offset: leafBytes - 10, length: 10, zero: true },
    { offset: 2 * leafBytes, length: 20, zero: true },
  ]);
  expect(await listed(mapWith(), across)).toEqual([]);
});
