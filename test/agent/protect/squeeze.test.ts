import { createHmac, randomBytes, randomUUID } from 'node:crypto';
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { zstdDecompressSync } from 'node:zlib';
import { afterAll, describe, expect, it } from 'vitest';
import { outcome, type Squeezed, type SqueezeTask, squeeze } from '../../../agent/protect/squeeze.ts';
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
    file: null,
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

function squeezed(task: SqueezeTask): Squeezed {
  const result = squeeze(task);
  if (result === null) throw new Error('nothing could be read');
  return result;
}

describe('squeezing a stretch', () => {
  it.each([1, -7, 0])('at level %i keeps the content of every changed block, in place of what was read', (level) => {
    const { task, content } = stretchOf();
    const { outcomes, digests, records } = squeezed({ ...task, compressionLevel: level });
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
    const { records } = squeezed({ ...task, known: new Uint8Array(6) });
    expect(records.map(({ codec: used, body }) => [used, body.length])).toEqual([
      [codec.stored, 4 * blockSize],
      [codec.stored, 2 * blockSize],
    ]);
    expect(Buffer.concat(records.map(({ body }) => body)).equals(noise)).toBe(true);
  });

  it('compresses again after something that does not', () => {
    const { task } = stretchOf();
    const bytes = new Uint8Array(new SharedArrayBuffer(16 * blockSize));
    bytes.fill(0x61, 8 * blockSize);
    bytes.set(randomBytes(8 * blockSize));
    const count = 16;
    const empty = { knownDigests: new Uint8Array(count * 16), known: new Uint8Array(count) };
    const none = { ...empty, journaledDigests: new Uint8Array(count * 16), journaled: new Uint8Array(count) };
    const { records } = squeezed({ ...task, ...none, bytes, kinds: new Uint8Array(count).fill(blockKind.read) });
    expect(records.map(({ codec: used }) => used)).toEqual([codec.stored, codec.stored, codec.zstd, codec.zstd]);
  });
});

describe('squeezing a stretch of a file', () => {
  const folder = mkdtempSync(join(tmpdir(), 'failkit-squeeze-'));
  afterAll(() => rmSync(folder, { recursive: true }));

  /** The stretch of `stretchOf`, which begins 1000 bytes into a file that ends 100 bytes before the stretch does. */
  function fileOf(content: readonly Uint8Array[]): number {
    const path = join(folder, randomUUID());
    const inFile = Buffer.concat([randomBytes(1000), ...content]);
    writeFileSync(path, inFile.subarray(0, inFile.length - 100));
    return openSync(path, 'r');
  }

  it('gives what the same bytes in memory give, and takes nothing from what it was not to read', () => {
    const { task, content } = stretchOf();
    const last = Uint8Array.from(content.at(-1) ?? []).fill(0, blockSize - 100);
    const kinds = Uint8Array.from(task.kinds).fill(blockKind.zero, 2, 3);
    task.bytes.set(last, 5 * blockSize);
    const inMemory = squeezed({ ...task, kinds, bytes: Uint8Array.from(task.bytes) });
    const fd = fileOf(content);
    const bytes = new Uint8Array(task.bytes.length).fill(0xee);
    const pieces = [{ at: 0, length: task.bytes.length, fd, offset: 1000 }];
    const file = { pieces, offset: 0, length: task.bytes.length - 100 };
    const fromFile = squeezed({ ...task, kinds, bytes, file });
    closeSync(fd);
    expect(fromFile.outcomes).toEqual(inMemory.outcomes);
    expect(fromFile.digests).toEqual(inMemory.digests);
    expect(fromFile.records).toEqual(inMemory.records);
    expect(fromFile.outcomes[2]).toBe(outcome.zero);
  });

  it.each(['ends early', 'is closed'])('says so when the file %s, and leaves the reason to its owner', (how) => {
    const { task, content } = stretchOf();
    const fd = fileOf(how === 'ends early' ? content.slice(0, 3) : content);
    if (how === 'is closed') closeSync(fd);
    const pieces = [{ at: 0, length: task.bytes.length, fd, offset: 1000 }];
    expect(squeeze({ ...task, file: { pieces, offset: 0, length: task.bytes.length } })).toBeNull();
    if (how === 'ends early') closeSync(fd);
  });
});
