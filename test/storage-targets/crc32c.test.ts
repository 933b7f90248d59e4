import { describe, expect, it } from 'vitest';
import { crc32c, crc32cText } from '../../storage-targets/crc32c.ts';

describe('CRC-32C', () => {
  it.each([
    ['nothing', new Uint8Array(0), 0],
    ['the check value of its catalogue', new TextEncoder().encode('123456789'), 0xe3069283],
    // RFC 3720, B.4.
    ['32 zero bytes', new Uint8Array(32), 0x8a9136aa],
    ['32 bytes of ones', new Uint8Array(32).fill(0xff), 0x62a8ab43],
    ['32 rising bytes', Uint8Array.from({ length: 32 }, (_, at) => at), 0x46dd794e],
    ['32 falling bytes', Uint8Array.from({ length: 32 }, (_, at) => 31 - at), 0x113fdb5c],
  ])('of %s', (_, bytes, expected) => {
    expect(crc32c(bytes)).toBe(expected);
  });

  it('goes on from piece to piece, wherever the bytes are cut', () => {
    const bytes = Uint8Array.from({ length: 100 }, (_, at) => (at * 37) & 0xff);
    for (let cut = 0; cut <= bytes.length; cut++)
      expect(crc32c(bytes.subarray(cut), crc32c(bytes.subarray(0, cut)))).toBe(crc32c(bytes));
  });

  it('is written as the JSON API has it', () => {
    expect(crc32cText(0xe3069283)).toBe('4waSgw==');
  });
});
