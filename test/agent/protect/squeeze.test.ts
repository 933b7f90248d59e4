import { createHmac, randomBytes } from 'node:crypto';
import { zstdDecompressSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { outcome, type SqueezeTask, squeeze } from '../../../agent/protect/squeeze.ts';
import { blockKind } from '../../../agent/protect/stretch.ts';
import { codec } from '../../../replica/segment.ts';

const blockSize = 65_536;
const digestKey = randomBytes(32);

/** Zero, text, noise, known, text, text: what a stretch may hold. */
function stretchOf(): { task: SqueezeTask; content: readonly Uint8Array[] } {
  const text = (seed: string): Uint8Array => Buffer.alloc(blockSize, `${seed} lorem ipsum `);
  const content = [new Uint8Array(blockSize), text('a'), randomBytes(blockSize), text('b'), text('c'), text('d')];
  const count = content.length;
  const bytes = new Uint8Array(new SharedArrayBuffer(count * blockSize));
  for (const [i, block] of content.entries()) bytes.set(block, i * blockSize);
  const knownDigests = new Uint8Array(count * 16);
  knownDigests.set(digestOf(content[3] ?? new Uint8Array()), 3 * 16);
  const task = {
    bytes,
    blockSize,
    kinds: new Uint8Array(count).fill(blockKind.read),
    knownDigests,
    known: Uint8Array.of(0, 0, 0, 1, 0, 0),
    journaledDigests: new Uint8Array(count * 16),
    journaled: new Uint8Array(count),
    digestKey,
    compressionLevel: 1,
  };
  return { task, content };
}

function digestOf(block: Uint8Array): Uint8Array {
  return createHmac('sha256', digestKey).update(block).digest().subarray(0, 16);
}

describe('squeezing a stretch', () => {
  it.each([1, -7, 0])('at level %i keeps the content of every changed block, in place of what was read', (level) => {
    const { task, content } = stretchOf();
    const { outcomes, digests, records } = squeeze({ ...task, compressionLevel: level });
    const { zero, unchanged, changed } = outcome;
    expect([...outcomes]).toEqual([zero, changed, changed, unchanged, changed, changed]);
    expect(records.map(({ first, count }) => [first, count])).toEqual([
      [1, 2],
      [4, 2],
    ]);
    for (const { first, count, codec: used, body } of records) {
      expect(body.buffer).toBe(task.bytes.buffer);
      const plaintext = used === codec.zstd ? zstdDecompressSync(body) : body;
      expect(Buffer.concat(content.slice(first, first + count)).equals(plaintext)).toBe(true);
      expect(digests.subarray(first * 16, first * 16 + 16)).toEqual(
        Uint8Array.from(digestOf(content[first] ?? new Uint8Array())),
      );
    }
    expect(records.every(({ codec: used }) => used === (level === 0 ? codec.stored : codec.zstd))).toBe(true);
  });

  it('stores what does not compress as it is', () => {
    const { task } = stretchOf();
    const noise = randomBytes(task.bytes.length);
    task.bytes.set(noise);
    const { records } = squeeze({ ...task, known: new Uint8Array(6) });
    expect(records.map(({ codec: used, body }) => [used, body.length])).toEqual([
      [codec.stored, 4 * blockSize],
      [codec.stored, 2 * blockSize],
    ]);
    expect(Buffer.concat(records.map(({ body }) => body)).equals(noise)).toBe(true);
  });
});
