import { expect, it } from 'vitest';
import { BlockCache } from '../../../restore/serve/block-cache.ts';
import { ReadAhead } from '../../../restore/serve/read-ahead.ts';
import { Random } from '../../random.ts';

const kibi = 1024;
const mebi = 1024 * kibi;

it('a row of reads is read ahead, ever further, up to the bound and never more than half of what was read', () => {
  const ahead = new ReadAhead(4 * mebi);
  let fetched = 0;
  let furthest = 0;
  for (let at = 0; at < 64 * mebi; at += 128 * kibi) {
    const range = ahead.after(at, 128 * kibi);
    if (range === null) continue;
    expect(range.offset).toBeGreaterThanOrEqual(Math.max(fetched, at));
    fetched = range.end;
    furthest = Math.max(furthest, range.end - (at + 128 * kibi));
    expect(range.end - (at + 128 * kibi)).toBeLessThanOrEqual((at + 128 * kibi) / 2);
  }
  expect(furthest).toBe(4 * mebi);
  expect(fetched).toBeGreaterThan(64 * mebi);
});

it('the first few reads of a row are not read ahead', () => {
  const ahead = new ReadAhead(4 * mebi);
  for (let at = 0; at < 384 * kibi; at += 64 * kibi) expect(ahead.after(at, 64 * kibi)).toBeNull();
});

it('requests of one row that arrive in another order are one row', () => {
  const ahead = new ReadAhead(4 * mebi);
  const order = [1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10];
  const ranges = order.map((i) => ahead.after(i * 256 * kibi, 256 * kibi)).filter((range) => range !== null);
  expect(ranges.length).toBeGreaterThan(0);
});

it('random reads are never read ahead', () => {
  const ahead = new ReadAhead(4 * mebi);
  const random = new Random(1);
  for (let i = 0; i < 20_000; i++) expect(ahead.after(random.below(2 ** 20) * 4096, 4096)).toBeNull();
});

it('several rows at once, each by itself', () => {
  const ahead = new ReadAhead(4 * mebi);
  const starts = [0, 10, 20, 30, 40].map((gib) => gib * 1024 * mebi);
  const started = new Set<number>();
  for (let i = 0; i < 30; i++)
    for (const start of starts) if (ahead.after(start + i * 64 * kibi, 64 * kibi) !== null) started.add(start);
  expect(started.size).toBe(starts.length);
});

it('the cache forgets what was not asked for longest, and never mixes two disks', () => {
  using cache = new BlockCache(4 * 4096, 4096);
  const block = (value: number) => Buffer.alloc(4096, value);
  const found = (disk: number, unit: number) => {
    const into = Buffer.alloc(2);
    return cache.copy(disk, unit, 100, into) ? into[0] : null;
  };
  cache.put(0, 5, block(1));
  cache.put(1, 5, block(2));
  cache.put(0, 7, Buffer.concat([block(3), block(4)]));
  expect([found(0, 5), found(1, 5), found(0, 7), found(0, 8), found(0, 6)]).toEqual([1, 2, 3, 4, null]);
  expect(found(0, 5)).toBe(1);
  cache.put(2, 0, block(5));
  expect([found(1, 5), found(0, 5), found(2, 0)]).toEqual([null, 1, 5]);
  cache.put(2, 0, block(6));
  expect(found(2, 0)).toBe(6);
  expect(cache.heldBytes).toBe(4 * 4096);
});

it('a cache that was hardly used takes hardly any memory, also when it ends', () => {
  const mib = () => process.memoryUsage().rss / mebi;
  const before = mib();
  {
    using cache = new BlockCache(512 * mebi, 64 * kibi);
    cache.put(0, 0, Buffer.alloc(64 * kibi, 1));
  }
  expect(mib() - before).toBeLessThan(256);
});
