import { randomBytes } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { copyBytes } from '../../crypto/copy-bytes.ts';

const room = 8192;

describe('copying onto shared memory', () => {
  it.each([0, 1, 1023, 1024, 1025, 5001])('puts %i bytes where they belong, and touches nothing else', (length) => {
    for (const [from, at] of [
      [0, 0],
      [3, 5],
      [8, room - length],
    ] as const) {
      const source = new Uint8Array(randomBytes(room));
      const into = new Uint8Array(new SharedArrayBuffer(room + 100)).subarray(100).fill(0xa5);
      const expected = Uint8Array.from(into);
      expected.set(source.subarray(from, from + length), at);
      copyBytes(source.subarray(from, from + length), into, at);
      expect(Buffer.compare(into, expected)).toBe(0);
    }
  });

  it('refuses what does not fit, as `set` does', () => {
    for (const length of [11, 2000])
      expect(() => copyBytes(new Uint8Array(length), new Uint8Array(length + 4), 5)).toThrow(RangeError);
  });
});
