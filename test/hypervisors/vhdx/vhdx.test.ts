import { describe, expect, it } from 'vitest';
import { diskExtents, readDisk } from '../../../hypervisors/vhdx/chain-reader.ts';
import { crc32cWithout } from '../../../hypervisors/vhdx/crc32c.ts';
import { parentPlaces } from '../../../hypervisors/vhdx/parent-places.ts';
import { Random } from '../../random.ts';
import { linksTo, madeChain } from './made-chain.ts';
import { madeVhdChain } from './made-vhd.ts';
import { bytesOf } from './memory-file.ts';
import { contentOf, openIn } from './read-all.ts';
import {
  blockTableAt,
  logAt,
  type MadeBlock,
  makeLogEntry,
  makeVhdx,
  mebibyte,
  metadataAt,
  sum,
  type VhdxPlan,
} from './vhdx-maker.ts';

const never = new AbortController().signal;
const guid = '0a0b0c0d-1111-2222-3333-444455556666';
const other = '77777777-1111-2222-3333-444455556666';
const full = (value: number): MadeBlock => ({ state: 'full', bytes: Buffer.alloc(mebibyte, value) });

function image(plan: Partial<VhdxPlan> = {}): Buffer {
  const plain = { capacityBytes: 2 * mebibyte, sectorBytes: 512 as const, blockBytes: mebibyte, parent: null };
  return bytesOf(makeVhdx({ ...plain, blocks: new Map([[0, full(7)]]), dataWriteGuid: guid, ...plan }));
}

function child(entries: Readonly<Record<string, string>>, plan: Partial<VhdxPlan> = {}): Buffer {
  return image({ blocks: new Map(), dataWriteGuid: other, parent: { dataWriteGuid: guid, entries }, ...plan });
}

async function codeOf(files: Readonly<Record<string, Uint8Array>>, name = 'a.vhdx'): Promise<string> {
  try {
    await using chain = await openIn(files, name);
    await contentOf(chain);
    return 'read';
  } catch (error) {
    return error instanceof Error && 'code' in error ? String(error.code) : `unnamed: ${String(error)}`;
  }
}

function changed(bytes: Buffer, at: number, value: readonly number[]): Buffer {
  const copy = Buffer.from(bytes);
  copy.set(value, at);
  return copy;
}

it('sums as CRC-32C does', () => {
  // RFC 3720, B.4: 32 bytes of zeros. The four of the sum itself count as zeros.
  expect(crc32cWithout(new Uint8Array(32), 4)).toBe(0x8a9136aa);
  expect(crc32cWithout(new Uint8Array(32).fill(9, 4, 8), 4)).toBe(0x8a9136aa);
});

describe('a chain', () => {
  it.for([1, 2, 3, 4, 5, 6, 7, 8])(
    'of %i random images reads as whoever made it says, whole and in parts',
    async (depth) => {
      for (const sectorBytes of [512, 4096] as const) {
        const random = new Random(depth * 2 + sectorBytes);
        const made = madeChain(random, { depth, sectorBytes, resizes: depth % 2 === 0 });
        const files = Object.fromEntries(made.layers.map(({ name, bytes }) => [name, bytes]));
        await using chain = await openIn(files, made.top.name);
        expect(Buffer.compare(await contentOf(chain), made.content)).toBe(0);
        for (let i = 0; i < 20; i++) {
          const [a, b] = [random.below(made.content.length), random.below(made.content.length)];
          const into = Buffer.alloc(Math.abs(a - b), 0xee);
          await readDisk(chain, Math.min(a, b), into, never);
          expect(Buffer.compare(into, made.content.subarray(Math.min(a, b), Math.max(a, b)))).toBe(0);
        }
      }
    },
  );

  it('reads an explicit zero as zero, whatever the parent has there', async () => {
    const files = {
      'p.vhdx': image(),
      'a.vhdx': child(linksTo('p.vhdx', guid), { blocks: new Map([[0, { state: 'zero' as const }]]) }),
    };
    await using chain = await openIn(files, 'a.vhdx');
    expect((await contentOf(chain)).every((byte) => byte === 0)).toBe(true);
  });

  it('takes a parent by either linkage, but never by one of zeros', async () => {
    const zero = '00000000-0000-0000-0000-000000000000';
    const second = { ...linksTo('p.vhdx', other), parent_linkage2: `{${guid.toUpperCase()}}` };
    expect(await codeOf({ 'p.vhdx': image(), 'a.vhdx': child(second) })).toBe('read');
    const zeros = image({ dataWriteGuid: zero });
    expect(await codeOf({ 'p.vhdx': zeros, 'a.vhdx': child(linksTo('p.vhdx', other)) })).toBe('IMAGE_PARENT_MISMATCH');
    expect(await codeOf({ 'p.vhdx': zeros, 'a.vhdx': child(linksTo('p.vhdx', zero)) })).toBe('IMAGE_CORRUPT');
  });

  it('is refused where a parent is missing, was written to, or has other sectors', async () => {
    const a = child(linksTo('p.vhdx', guid));
    expect(await codeOf({ 'a.vhdx': a })).toBe('IMAGE_PARENT_MISSING');
    expect(await codeOf({ 'p.vhdx': image({ dataWriteGuid: other }), 'a.vhdx': a })).toBe('IMAGE_PARENT_MISMATCH');
    expect(await codeOf({ 'p.vhdx': image({ sectorBytes: 4096 }), 'a.vhdx': a })).toBe('IMAGE_CORRUPT');
  });

  it('that is a circle, or longer than Hyper-V makes them, ends', async () => {
    expect(await codeOf({ 'a.vhdx': child(linksTo('a.vhdx', other)) })).toBe('IMAGE_CORRUPT');
    const layers = Array.from({ length: 70 }, (_, i) => [`${i}.avhdx`, child(linksTo(`${i + 1}.avhdx`, other))]);
    expect(await codeOf(Object.fromEntries(layers), '0.avhdx')).toBe('IMAGE_UNSUPPORTED');
  });

  it('follows relative paths from its own folder, and knows absolute ones of Windows by their last part', () => {
    const paths = [
      { relative: true, path: '..\\base\\p.vhdx' },
      { relative: false, path: '\\\\?\\Volume{1}\\machines\\p.vhdx' },
    ];
    expect(parentPlaces('/disks/web/a.avhdx', paths, false)).toEqual(['/disks/base/p.vhdx', '/disks/web/p.vhdx']);
    expect(parentPlaces('D:\\web\\a.avhdx', paths, true)).toEqual([
      'D:\\base\\p.vhdx',
      '\\\\?\\Volume{1}\\machines\\p.vhdx',
      'D:\\web\\p.vhdx',
    ]);
  });
});

it('finds its bitmaps in every chunk of a large disk', async () => {
  // 4096 blocks of 1 MiB share a bitmap.
  const capacityBytes = 9 * 2 ** 30 + 3 * 512;
  const has = Array.from({ length: 2048 }, (_, i) => i === 1 || i === 2047);
  const partial: MadeBlock = { state: 'partial', bytes: Buffer.alloc(mebibyte, 5), has };
  const blocks = [4095, 4096, 8191, 8192, 9215];
  const plan = { capacityBytes, blocks: new Map(blocks.map((block) => [block, partial])) };
  const base = image({ capacityBytes, blocks: new Map([[4096, full(7)]]) });
  const files = { 'p.vhdx': base, 'a.vhdx': child(linksTo('p.vhdx', guid), plan) };
  await using chain = await openIn(files, 'a.vhdx');
  const data: number[] = [];
  for await (const { offset, length, zero } of diskExtents(chain, never))
    if (!zero) data.push(offset / 512, length / 512);
  const [a, b, c, d, e] = blocks.map((block) => block * 2048);
  const runs = [
    [a, 1, 1],
    [a, 2047, 1 + 2048],
    [c, 1, 1],
    [c, 2047, 1],
    [d, 1, 1],
    [d, 2047, 1],
    [e, 1, 1],
    [e, 2047, 1],
  ];
  expect(data).toEqual(runs.flatMap(([first = 0, at = 0, length = 0]) => [first + at, length]));
  const into = Buffer.alloc(1536);
  await readDisk(chain, (b ?? 0) * 512, into, never);
  expect([into[511], into[512], into[1024]]).toEqual([7, 5, 7]);
});

describe('a VHD', () => {
  it.for([1, 2, 3, 4])('that lies over %i others but one reads as whoever made it says', async (depth) => {
    const made = madeVhdChain(new Random(depth), depth);
    const files = Object.fromEntries(made.layers.map(({ name, bytes }) => [name, bytes]));
    await using chain = await openIn(files, made.top.name);
    expect(Buffer.compare(await contentOf(chain), made.content)).toBe(0);
  });

  it('is read by the copy of its footer where the end of the file is torn, and refused where both are', async () => {
    const { top } = madeVhdChain(new Random(7), 1);
    const torn = changed(top.bytes, top.bytes.length - 500, [9]);
    expect(await codeOf({ a: torn }, 'a')).toBe('read');
    expect(await codeOf({ a: changed(torn, 12, [9]) }, 'a')).toBe('IMAGE_CORRUPT');
  });

  it('over a parent that was exchanged is refused, and one whose blocks share a place, too', async () => {
    const { layers } = madeVhdChain(new Random(3), 2);
    const stranger = madeVhdChain(new Random(4), 3).layers[1]?.bytes ?? Buffer.alloc(0);
    const files = { 'layer-0.vhd': stranger, 'layer-1.avhd': layers[1]?.bytes ?? Buffer.alloc(0) };
    expect(await codeOf(files, 'layer-1.avhd')).toBe('IMAGE_PARENT_MISMATCH');
    const twice = Buffer.from(madeVhdChain(new Random(5), 1).top.bytes);
    const place = [4096, 4100, 4104].map((at) => twice.readUInt32BE(at)).find((each) => each !== 0xffffffff) ?? 9;
    for (const at of [4096, 4100]) twice.writeUInt32BE(place, at);
    expect(await codeOf({ a: twice }, 'a')).toBe('IMAGE_CORRUPT');
  });
});

describe('an image', () => {
  const [first, second] = [65_536, 131_072];

  it('goes by the newer whole header, and by the other one where that is torn', async () => {
    const torn = (at: number, from: Buffer): Buffer => changed(from, at + 100, [1]);
    expect(await codeOf({ 'a.vhdx': torn(first, image()) })).toBe('read');
    expect(await codeOf({ 'a.vhdx': torn(second, image()) })).toBe('read');
    expect(await codeOf({ 'a.vhdx': torn(first, torn(second, image())) })).toBe('IMAGE_CORRUPT');
  });

  it('with two headers of one number is read where they are equal', async () => {
    const bytes = image();
    bytes.copy(bytes, second, first, first + 4096);
    expect(await codeOf({ 'a.vhdx': bytes })).toBe('read');
    const header = sum(changed(bytes.subarray(second, second + 4096), 32, [9]));
    expect(await codeOf({ 'a.vhdx': changed(bytes, second, [...header]) })).toBe('IMAGE_CORRUPT');
  });

  it('of a later version, or with a region or metadata that must be known, is refused by name', async () => {
    const later = image();
    for (const at of [first, second]) {
      later.writeUInt16LE(2, at + 66);
      sum(later.subarray(at, at + 4096));
    }
    expect(await codeOf({ 'a.vhdx': later })).toBe('IMAGE_UNSUPPORTED');
    expect(await codeOf({ 'a.vhdx': changed(image(), metadataAt + 32 * 5, [1]) })).toBe('IMAGE_UNSUPPORTED');
  });

  it.for([
    ['a reserved state', [4]],
    ['a partial block without a parent', [7]],
    ['reserved bits', [8 + 6]],
    ['a block beyond the end of the file', [6, 0, 0, 0, 1]],
    ['a block on the tables', [6, 0, 0x30]],
  ] as const)('whose block table has %s is corrupt', async ([, entry]) => {
    expect(await codeOf({ 'a.vhdx': changed(image(), blockTableAt, entry) })).toBe('IMAGE_CORRUPT');
  });

  it('with two blocks at one place is corrupt, and one that was cut short, too', async () => {
    const bytes = image();
    bytes.copy(bytes, blockTableAt + 8, blockTableAt, blockTableAt + 8);
    expect(await codeOf({ 'a.vhdx': bytes })).toBe('IMAGE_CORRUPT');
    expect(await codeOf({ 'a.vhdx': image().subarray(0, -mebibyte) })).toBe('IMAGE_CORRUPT');
  });
});

describe('a log', () => {
  /** The block's first sectors, written anew three times; the last entry wraps around the end of the log. */
  function dirty(): { bytes: Buffer; entries: readonly Buffer[]; at: readonly number[] } {
    const bytes = image({ logGuid: other });
    const write = (at: number, value: number) => ({ at, bytes: Buffer.alloc(4096, value) });
    const block = bytes.length - mebibyte;
    const at = [mebibyte - 24_576, mebibyte - 16_384, mebibyte - 8192];
    const entries = [
      makeLogEntry(other, 40, at[0] ?? 0, bytes.length, [write(block, 1)]),
      makeLogEntry(other, 41, at[0] ?? 0, bytes.length, [write(block, 2)]),
      makeLogEntry(other, 42, at[0] ?? 0, bytes.length, [write(block + 4096, 3), { at: block + 8192, bytes: 4096 }]),
    ];
    for (const [i, entry] of entries.entries())
      for (let part = 0; part < entry.length; part += 4096)
        entry.copy(bytes, logAt + (((at[i] ?? 0) + part) % mebibyte), part, part + 4096);
    return { bytes, entries, at };
  }

  const firstSectors = async (bytes: Buffer): Promise<readonly number[]> => {
    const before = Buffer.from(bytes);
    await using chain = await openIn({ 'a.vhdx': bytes }, 'a.vhdx');
    const content = await contentOf(chain);
    expect(Buffer.compare(bytes, before)).toBe(0);
    return [0, 4096, 8192, 12_288].map((at) => content[at] ?? -1);
  };

  it('is replayed in memory, also around its end, and the file is left as it is', async () => {
    expect(await firstSectors(dirty().bytes)).toEqual([2, 3, 0, 7]);
  });

  it('ends before an entry that is torn', async () => {
    const { bytes, at } = dirty();
    expect(await firstSectors(changed(bytes, logAt + (at[2] ?? 0) + 4100, [1]))).toEqual([2, 7, 7, 7]);
  });

  it('of which nothing is whole, or whose file was cut since, makes the image corrupt', async () => {
    const { bytes, at } = dirty();
    const torn = at.reduce((from, place) => changed(from, logAt + place + 4100, [1]), bytes);
    expect(await codeOf({ 'a.vhdx': torn })).toBe('IMAGE_CORRUPT');
    const long = image({ logGuid: other });
    makeLogEntry(other, 1, 0, long.length + mebibyte, []).copy(long, logAt);
    expect(await codeOf({ 'a.vhdx': long })).toBe('IMAGE_CORRUPT');
  });

  it('of another session of the file is none', async () => {
    const bytes = image({ logGuid: other });
    makeLogEntry(guid, 9, 0, bytes.length, []).copy(bytes, logAt);
    expect(await codeOf({ 'a.vhdx': bytes })).toBe('IMAGE_CORRUPT');
  });
});
