import fc from 'fast-check';
import { expect, it } from 'vitest';
import { blockKind, inBatches, type Stretch, stretches, withMarks } from '../../../agent/protect/stretch.ts';
import type { Extent } from '../../../hypervisors/hypervisor.ts';

const blockSize = 65_536;

async function* given(extents: readonly Extent[]): AsyncGenerator<Extent> {
  yield* extents;
}

async function* oneByOne(batches: AsyncIterable<readonly Stretch[]>): AsyncGenerator<Stretch> {
  for await (const batch of batches) {
    const blocks = batch.reduce((sum, { kinds }) => sum + kinds.length, 0);
    expect(batch.length === 1 || blocks <= 16, 'one stretch, or some that are a MiB together').toBe(true);
    for (const stretch of batch) {
      expect(stretch.kinds).not.toContain(blockKind.untouched);
      yield stretch;
    }
  }
}

async function kindsOf(wanted: AsyncIterable<Stretch>, blockCount: number): Promise<Uint8Array> {
  const kinds = new Uint8Array(blockCount);
  let end = 0;
  for await (const { firstBlock, kinds: own } of wanted) {
    expect(firstBlock, 'ascending, each once').toBeGreaterThanOrEqual(end);
    kinds.set(own, firstBlock);
    end = firstBlock + own.length;
  }
  return kinds;
}

it('blocks that are to be verified, and those to be sent again, come in the same order as what changed, each once, and change nothing else', async () => {
  const edge = fc.nat({ max: 299 });
  const cuts = fc.uniqueArray(edge, { maxLength: 8 }).map((edges) => edges.sort((a, b) => a - b));
  const pairs = (edges: readonly number[]): readonly (readonly [number, number])[] =>
    edges.flatMap((from, i) => (i % 2 === 0 && i + 1 < edges.length ? [[from, edges[i + 1] ?? 0] as const] : []));
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 1, max: 300 }), cuts, cuts, cuts, async (blockCount, changed, checked, sent) => {
      const inside = (all: readonly (readonly [number, number])[]) => all.filter(([, end]) => end <= blockCount);
      const extents = inside(pairs(changed)).map(([from, to], i) => ({
        offset: from * blockSize,
        length: (to - from) * blockSize,
        zero: i % 2 === 1,
      }));
      const ranges = inside(pairs(checked)).map(([first, end]) => ({ first, end }));
      const resend = inside(pairs(sent)).map(([first, end]) => ({ first, end }));
      const options = { blockSize, blockCount, full: false };
      const plain = await kindsOf(stretches(given(extents), options), blockCount);
      const verified = () => withMarks(stretches(given(extents), options), ranges, blockKind.verify, options);
      const checks = () => withMarks(verified(), resend, blockKind.resend, options);
      const kinds = await kindsOf(checks(), blockCount);
      expect(await kindsOf(oneByOne(inBatches(checks(), options)), blockCount)).toEqual(kinds);
      for (let block = 0; block < blockCount; block++) {
        const isIn = (all: typeof ranges) => all.some(({ first, end }) => first <= block && block < end);
        const untouched = isIn(resend) ? blockKind.resend : isIn(ranges) ? blockKind.verify : blockKind.untouched;
        expect(kinds[block]).toBe(plain[block] === blockKind.untouched ? untouched : plain[block]);
      }
    }),
  );
});

it('blocks far apart are worked on sixteen at a time: what lies between them takes no room', async () => {
  const options = { blockSize, blockCount: 6_400, full: false };
  const extents = Array.from({ length: 128 }, (_, i) => ({
    offset: i * 50 * blockSize,
    length: blockSize,
    zero: false,
  }));
  const sizes: number[] = [];
  for await (const batch of inBatches(stretches(given(extents), options), options)) sizes.push(batch.length);
  expect(sizes).toEqual(new Array(8).fill(16));
});
