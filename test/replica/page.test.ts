import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { toHex } from '../../replica/encoding.ts';
import { placesOf, runsOf, samePlace } from '../../replica/leaf.ts';
import {
  encodeInner,
  encodeLeaf,
  type InnerPage,
  type Leaf,
  pageSpan,
  parsePage,
  type Run,
  rootLevel,
} from '../../replica/page.ts';
import { anyChildren, anyLeaf, anyLeafPlaces } from './arbitrary.ts';
import { expectStrict, joined, refusal } from './damage.ts';
import { filled } from './specimens.ts';

const firstBlocks = fc.nat({ max: 2 ** 20 }).map((leaf) => leaf * 64);

describe('a leaf', () => {
  const read = (firstBlock: number) => (bytes: Uint8Array) => parsePage(bytes, 0, firstBlock, 'a leaf');
  const encode = (firstBlock: number) => (page: Leaf | InnerPage) =>
    encodeLeaf(firstBlock, 'runs' in page ? page.runs : []);

  it('comes back as it was written', () => {
    fc.assert(
      fc.property(
        firstBlocks.chain((first) => fc.tuple(fc.constant(first), anyLeaf(first))),
        ([first, runs]) => {
          const bytes = encodeLeaf(first, runs);
          const page = read(first)(bytes);
          expect(page).toEqual({
            level: 0,
            runs: runs.map((run) => ({ ...run, digests: Uint8Array.from(run.digests) })),
          });
          expect(toHex(encode(first)(page))).toBe(toHex(bytes));
        },
      ),
    );
  });

  it('is read as another canonical leaf or refused when it was damaged', () => {
    fc.assert(
      fc.property(anyLeaf(640), (runs) => {
        expectStrict(encodeLeaf(640, runs), read(640), encode(640));
      }),
      { numRuns: 4 },
    );
  });

  it('falls apart into 64 places, and these make the same runs again', () => {
    fc.assert(
      fc.property(anyLeafPlaces(128), (places) => {
        const runs = runsOf(places, 128);
        const again = placesOf(runs, 128);
        expect(again.length).toBe(64);
        again.forEach((place, i) => {
          expect(samePlace(place, places[i] ?? null, 128 + i)).toBe(true);
        });
        expect(runsOf(again, 128)).toEqual(runs);
        const ends = runs.map((run) => run.first + run.count);
        expect(runs.every((run, i) => run.first >= (ends[i - 1] ?? 128))).toBe(true);
      }),
    );
  });

  it('has two places of one block only where segment, record, position and digest are the same', () => {
    const place: Run = { first: 70, count: 1, at, codec: 0, inside: 1, recordBlocks: 2, digests: filled(16, 1) };
    expect(samePlace(place, { ...place, digests: Buffer.from(place.digests) }, 70)).toBe(true);
    const longer = { ...place, first: 69, count: 2, inside: 0, digests: Buffer.concat([filled(16, 9), filled(16, 1)]) };
    expect(samePlace(place, longer, 70)).toBe(true);
    expect(samePlace(null, null, 70)).toBe(true);
    const others = [
      null,
      { ...place, inside: 0 },
      { ...place, digests: filled(16, 2) },
      { ...longer, digests: Buffer.concat([filled(16, 1), filled(16, 9)]) },
      { ...place, at: { ...at, record: 1 } },
      { ...place, at: { ...at, number: 2 } },
      { ...place, at: { ...at, tenure: 2 } },
    ];
    for (const other of others) expect(samePlace(place, other, 70)).toBe(false);
    expect(samePlace(null, place, 70)).toBe(false);
  });

  const at = { tenure: 1, number: 1, record: 0, offset: 128, length: 100 };
  const run = (first: number, count: number, change: Partial<Run> = {}): Run => ({
    ...{ first, count, at, codec: 0, inside: 0, recordBlocks: count, digests: filled(16 * count, 1) },
    ...change,
  });
  it.each<[string, readonly Run[]]>([
    ['without runs', []],
    ['with a run of no blocks', [run(64, 0)]],
    ['with a run beyond its end', [run(127, 2)]],
    ['with a run longer than its record', [run(64, 2, { recordBlocks: 1 })]],
    ['with a run that begins behind its record', [run(64, 1, { inside: 1, recordBlocks: 1 })]],
    ['with a record that begins in the leaf before', [run(64, 1, { inside: 1, recordBlocks: 2 })]],
    ['with a record that ends in the next leaf', [run(127, 1, { recordBlocks: 2 })]],
    ['with two runs that are one', [run(64, 1, { recordBlocks: 2 }), run(65, 1, { inside: 1, recordBlocks: 2 })]],
    ['with a record number that no segment has', [run(64, 1, { at: { ...at, record: 4096 } })]],
    ['with a record shorter than a tag', [run(64, 1, { at: { ...at, length: 15 } })]],
    ['with an unknown codec', [run(64, 1, { codec: 2 as 1 })]],
  ])('%s is refused', (what, runs) => {
    expect(refusal(() => read(64)(encodeLeaf(64, runs)), what)).toBe('FORMAT_INVALID');
  });

  it('is refused where another page belongs', () => {
    const bytes = encodeLeaf(64, [run(64, 1)]);
    expect(refusal(() => parsePage(bytes, 1, 0, 'a page'), 'as an inner page')).toBe('FORMAT_INVALID');
    expect(refusal(() => parsePage(joined([2], bytes.slice(1)), 0, 64, 'a page'), 'of version 2')).toBe(
      'FORMAT_INVALID',
    );
    // Table and runs by hand: one segment too many, and two in the wrong order.
    const tail = bytes.slice(5);
    expect(refusal(() => read(64)(joined([1, 0, 2, 1, 1, 1, 2], tail)), 'an unused segment')).toBe('FORMAT_INVALID');
    expect(refusal(() => read(64)(joined([1, 0, 2, 1, 2, 1, 1], tail)), 'segments out of order')).toBe(
      'FORMAT_INVALID',
    );
    expect(refusal(() => read(64)(joined([1, 0, 0], tail)), 'no segments')).toBe('FORMAT_INVALID');
  });
});

describe('an inner page', () => {
  const read = (bytes: Uint8Array) => parsePage(bytes, 2, 0, 'a page');
  const encode = (page: Leaf | InnerPage) => encodeInner(2, 'children' in page ? page.children : []).bytes;

  it('comes back as it was written', () => {
    fc.assert(
      fc.property(anyChildren, (children) => {
        const { bytes, holes } = encodeInner(2, children);
        expect(holes).toEqual([]);
        expect(read(bytes)).toEqual({ level: 2, children });
        expect(toHex(encode(read(bytes)))).toBe(toHex(bytes));
      }),
    );
  });

  it('is read as another canonical page or refused when it was damaged', () => {
    fc.assert(
      fc.property(
        anyChildren.map((children) => children.slice(0, 4)),
        (children) => {
          expectStrict(encodeInner(2, children).bytes, read, encode);
        },
      ),
      { numRuns: 4 },
    );
  });

  it('leaves holes for digests that are not known yet, and says where', () => {
    const ref = { tenure: 1, number: 1, record: 7, offset: 128, length: 100 };
    const { bytes, holes } = encodeInner(1, [{ ...ref, child: 63, digest: null }]);
    expect(holes).toEqual([{ at: bytes.length - 16, record: 7 }]);
    expect(toHex(bytes.subarray(5, 13))).toBe('8000000000000000');
    expect(toHex(bytes.subarray(bytes.length - 16))).toBe('00'.repeat(16));
  });

  it('without children is refused', () => {
    expect(refusal(() => read(encodeInner(2, []).bytes), 'no children')).toBe('FORMAT_INVALID');
  });

  it('covers 64 times what its children cover, and the root covers the disk', () => {
    expect([0, 1, 2, 3, 4].map(pageSpan)).toEqual([64, 4096, 262_144, 16_777_216, 1_073_741_824]);
    const levels = [0, 1, 64, 65, 4096, 4097, 262_144, 262_145, 16_777_216, 16_777_217, 2 ** 26];
    expect(levels.map(rootLevel)).toEqual([0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4]);
  });
});
