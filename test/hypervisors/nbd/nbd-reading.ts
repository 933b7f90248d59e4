import type { NbdDisk } from '../../../hypervisors/nbd/nbd-disk.ts';

const readBytes = 1_000_003;
const never = new AbortController().signal;

/** In pieces of an odd size, all at once. */
export async function readAll(disk: NbdDisk, signal = never): Promise<Uint8Array> {
  const all = new Uint8Array(disk.capacityBytes);
  const reads: Promise<void>[] = [];
  for (let at = 0; at < all.length; at += readBytes)
    reads.push(disk.read(at, all.subarray(at, Math.min(at + readBytes, all.length)), signal));
  await Promise.all(reads);
  return all;
}

export async function collect<Item>(items: AsyncIterable<Item>): Promise<Item[]> {
  const list: Item[] = [];
  for await (const item of items) list.push(item);
  return list;
}
