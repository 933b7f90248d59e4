import { expect, it } from 'vitest';
import { capacityOf, diskExtents, readDisk } from '../../../hypervisors/vhdx/chain-reader.ts';
import { timesTried } from '../../lanes/quick.ts';
import { Random } from '../../random.ts';
import { linksTo } from './made-chain.ts';
import { bytesOf } from './memory-file.ts';
import { naiveSector } from './naive-vhdx.ts';
import { openIn } from './read-all.ts';
import {
  blockTableAt,
  logAt,
  type MadeBlock,
  makeLogEntry,
  makeVhdx,
  mebibyte,
  metadataAt,
  sum,
} from './vhdx-maker.ts';

/**
 * Broken images end in a named error, or in the bytes that are right. Where a checksum covers the change, right is what was there
 * before; else what the file now means, as a second reader sees it that checks nothing.
 */

const cases = Number(process.env.FAILKIT_FUZZ_CASES || timesTried(2000));
const caseMsMax = 20_000;
const sectorsCompared = 12;
const never = new AbortController().signal;
const guid = '0a0b0c0d-1111-2222-3333-444455556666';
const childGuid = '77777777-1111-2222-3333-444455556666';
const sectorBytes = 512;
const capacityBytes = 5 * mebibyte - 7 * sectorBytes;

interface Place {
  readonly name: string;
  readonly at: number;
  readonly length: number;
  /** Of the structure that a checksum covers; null: none does. */
  readonly summed: { readonly at: number; readonly length: number } | null;
  readonly target: 'base' | 'child' | 'dirty';
}

const structure = (name: string, at: number, length: number, hot: number, target: Place['target'] = 'base'): Place => ({
  name,
  at,
  length: hot,
  summed: { at, length },
  target,
});
const places: readonly Place[] = [
  structure('first header', 65_536, 4096, 96),
  structure('second header', 131_072, 4096, 96),
  structure('region table', 196_608, 65_536, 96),
  structure('second region table', 262_144, 65_536, 96),
  structure("child's header", 131_072, 4096, 96, 'child'),
  structure('log entry', logAt + 8192, 8192, 160, 'dirty'),
  structure("log entry's sector", logAt + 8192, 8192, 8192, 'dirty'),
  { name: 'log', at: logAt, length: 32_768, summed: null, target: 'dirty' },
  { name: 'metadata table', at: metadataAt, length: 256, summed: null, target: 'base' },
  { name: 'metadata', at: metadataAt + 65_536, length: 48, summed: null, target: 'base' },
  { name: "child's metadata table", at: metadataAt, length: 256, summed: null, target: 'child' },
  { name: 'parent locator', at: metadataAt + 65_572, length: 440, summed: null, target: 'child' },
  { name: 'block table', at: blockTableAt, length: 48, summed: null, target: 'base' },
  { name: "child's block table", at: blockTableAt, length: 48, summed: null, target: 'child' },
  { name: "child's bitmap entry", at: blockTableAt + 4096 * 8, length: 8, summed: null, target: 'child' },
];

function patterned(value: number): Buffer {
  const bytes = Buffer.alloc(mebibyte, value);
  for (let at = 0; at < mebibyte; at += sectorBytes) bytes.writeUInt32LE(at + value, at);
  return bytes;
}

function madeFiles(): Readonly<Record<Place['target'], Buffer>> {
  const plan = { capacityBytes, sectorBytes, blockBytes: mebibyte, parent: null, dataWriteGuid: guid } as const;
  const base = new Map<number, MadeBlock>(
    [1, 2, 4].map((block) => [block, { state: 'full', bytes: patterned(block) }]),
  );
  const has = Array.from({ length: mebibyte / sectorBytes }, (_, i) => (i < 40 ? i % 3 === 0 : i > 1000));
  const own = new Map<number, MadeBlock>([
    [1, { state: 'partial', bytes: patterned(21), has }],
    [2, { state: 'zero' }],
    [3, { state: 'full', bytes: patterned(23) }],
    [4, { state: 'partial', bytes: patterned(24), has: has.map((each) => !each) }],
  ]);
  const parent = { dataWriteGuid: guid, entries: linksTo('base', guid) };
  const dirty = bytesOf(makeVhdx({ ...plan, blocks: base, logGuid: childGuid }));
  for (let i = 0; i < 3; i++) {
    const writes = [{ at: dirty.length - mebibyte, bytes: Buffer.alloc(4096, 100 + i) }];
    makeLogEntry(childGuid, 10 + i, 0, dirty.length, writes).copy(dirty, logAt + 8192 * i);
  }
  return {
    base: bytesOf(makeVhdx({ ...plan, blocks: base })),
    child: bytesOf(makeVhdx({ ...plan, blocks: own, parent, dataWriteGuid: childGuid })),
    dirty,
  };
}

/** One to four bytes, and now and then a whole number. Returns how to take it back. */
function mutate(random: Random, bytes: Buffer, { at, length }: Place): () => void {
  const before = Buffer.from(bytes.subarray(at, at + length));
  const changes = 1 + random.below(random.pick([1, 1, 4]));
  for (let i = 0; i < changes; i++) {
    const place = at + random.below(length);
    if (random.chance(0.25) && place + 8 <= at + length)
      bytes.writeBigUInt64LE(random.pick([0n, 1n, 2n ** 64n - 1n, 2n ** 63n, BigInt(bytes.length), 2n ** 44n]), place);
    else bytes[place] = random.chance(0.5) ? (bytes[place] ?? 0) ^ (1 << random.below(8)) : random.below(256);
  }
  return () => void bytes.set(before, at);
}

/** The sectors of the disk that are compared: at both ends, and wherever chance wants. */
function sectorsOf(random: Random, capacity: number, size: number): readonly number[] {
  const count = Math.floor(capacity / size);
  const near = Math.min(count, (5 * mebibyte) / size);
  const picked = Array.from({ length: sectorsCompared }, (_, i) => random.below(i % 2 === 0 ? near : count));
  return [0, count - 1, ...picked];
}

async function judge(
  random: Random,
  files: Readonly<Record<Place['target'], Buffer>>,
  target: Place['target'],
  expected: (sector: number, size: number) => readonly Buffer[] | null,
): Promise<'read' | string> {
  try {
    await using chain = await openIn(files, target);
    const size = chain.layers[0].sectorBytes;
    let extents = 0;
    for await (const _ of diskExtents(chain, never)) extents++;
    expect(extents).toBeGreaterThan(0);
    for (const sector of sectorsOf(random, capacityOf(chain), size)) {
      const into = Buffer.alloc(size, 0xee);
      await readDisk(chain, sector * size, into, never);
      const allowed = expected(sector, size);
      if (allowed !== null && !allowed.some((each) => each.equals(into)))
        throw new Error(`sector ${sector} of ${size} bytes has silently other bytes`);
    }
    return 'read';
  } catch (error) {
    if (error instanceof Error && 'code' in error && String(error.code).startsWith('IMAGE_')) return String(error.code);
    throw error;
  }
}

it(`${cases} broken images end in a named error or in the right bytes`, { timeout: 6_000_000 }, async () => {
  const seed = Number(process.env.FAILKIT_FUZZ_SEED || Date.now() % 2 ** 31);
  const files = madeFiles();
  const pristine = madeFiles();
  const tally = new Map<string, number>();
  for (let i = 0; i < cases; i++) {
    const random = new Random(seed + i);
    const place = random.pick(places);
    const bytes = files[place.target];
    const takeBack = mutate(random, bytes, place);
    const sums = place.summed !== null && random.chance(0.6);
    const summed =
      place.summed === null ? null : bytes.subarray(place.summed.at, place.summed.at + place.summed.length);
    const sumBefore = summed === null ? null : Buffer.from(summed.subarray(4, 8));
    if (sums && summed !== null) sum(summed);
    const started = performance.now();
    const outcome = await judge(random, files, place.target, rightBytes(place, sums, files, pristine)).catch(
      (cause: unknown) => {
        throw new Error(`seed ${seed + i}, ${place.name}${sums ? ', summed again' : ''}`, { cause });
      },
    );
    expect(performance.now() - started, `seed ${seed + i}`).toBeLessThan(caseMsMax);
    if (sumBefore !== null) summed?.set(sumBefore, 4);
    takeBack();
    const key = `${place.name}${sums ? ', summed again' : ''}: ${outcome}`;
    tally.set(key, (tally.get(key) ?? 0) + 1);
  }
  if (process.env.FAILKIT_FUZZ_CASES)
    console.info(
      [...tally]
        .sort()
        .map(([key, count]) => `${count} ${key}`)
        .join('\n'),
    );
  for (const target of ['base', 'child', 'dirty'] as const) expect(files[target].equals(pristine[target])).toBe(true);
});

/** What a sector may hold; null: nobody can say. */
function rightBytes(
  place: Place,
  sums: boolean,
  files: Readonly<Record<Place['target'], Buffer>>,
  pristine: Readonly<Record<Place['target'], Buffer>>,
): (sector: number, size: number) => readonly Buffer[] | null {
  // A log that someone wrote and summed up may say anything; torn, it ends before the entry that is.
  if (place.target === 'dirty')
    return (sector, size) => {
      if (sums) return null;
      const replayed = [100, 101, 102].map((value) => plainAfter(pristine.base, value));
      return replayed.map((each) => naiveSector([each], sector).subarray(0, size));
    };
  const now = place.summed === null || sums;
  const [base, child] = now ? [files.base, files.child] : [pristine.base, pristine.child];
  const chain = place.target === 'base' ? [base] : [child, base];
  return (sector) => [naiveSector(chain, sector)];
}

const afterwards = new Map<number, Buffer>();

function plainAfter(plain: Buffer, value: number): Buffer {
  const known = afterwards.get(value);
  if (known !== undefined) return known;
  const bytes = Buffer.from(plain);
  bytes.fill(value, bytes.length - mebibyte, bytes.length - mebibyte + 4096);
  afterwards.set(value, bytes);
  return bytes;
}
