import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ByteReader, ByteWriter, FormatInvalid, sameBytes, toHex } from '../../replica/encoding.ts';
import { anyNumber, anyText } from './arbitrary.ts';

type Field =
  | { readonly kind: 'u8' | 'u16' | 'u32' | 'u64' | 'varint'; readonly value: number }
  | { readonly kind: 'mask64'; readonly value: bigint }
  | { readonly kind: 'bytes'; readonly value: Uint8Array }
  | { readonly kind: 'text'; readonly value: string };

const anyField: fc.Arbitrary<Field> = fc.oneof(
  fc.record({ kind: fc.constant('u8' as const), value: fc.nat({ max: 0xff }) }),
  fc.record({ kind: fc.constant('u16' as const), value: fc.nat({ max: 0xffff }) }),
  fc.record({ kind: fc.constant('u32' as const), value: fc.nat({ max: 0xffff_ffff }) }),
  fc.record({ kind: fc.constantFrom('u64' as const, 'varint' as const), value: anyNumber }),
  fc.record({ kind: fc.constant('mask64' as const), value: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }) }),
  fc.record({ kind: fc.constant('bytes' as const), value: fc.uint8Array({ maxLength: 600 }) }),
  fc.record({ kind: fc.constant('text' as const), value: anyText }),
);

function write(writer: ByteWriter, field: Field): void {
  switch (field.kind) {
    case 'mask64':
      writer.mask64(field.value);
      return;
    case 'bytes':
      writer.bytes(field.value);
      return;
    case 'text':
      writer.text(field.value);
      return;
    default:
      writer[field.kind](field.value);
  }
}

function read(hex: string, how: (reader: ByteReader) => unknown): () => unknown {
  return () => {
    const reader = new ByteReader('an object', Buffer.from(hex, 'hex'));
    const value = how(reader);
    reader.end();
    return value;
  };
}

const varint = (reader: ByteReader): number => reader.varint();

describe('fields', () => {
  it('come back as they were written, one after another', () => {
    fc.assert(
      fc.property(fc.array(anyField, { maxLength: 30 }), (fields) => {
        const writer = new ByteWriter();
        for (const field of fields) write(writer, field);
        const reader = new ByteReader('fields', writer.finish());
        for (const { kind, value } of fields) expect(reader[kind]()).toEqual(value);
        reader.end();
      }),
    );
  });

  it('are big-endian, and a varint takes its least significant group first', () => {
    const written = new ByteWriter()
      .u16(0x0102)
      .u32(0x03040506)
      .u64(2 ** 53 - 1)
      .varint(300)
      .text('é')
      .finish();
    expect(toHex(written)).toBe('0102' + '03040506' + '001fffffffffffff' + 'ac02' + '02c3a9');
  });

  it('a varint has one form only', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 1, maxLength: 9 }), (bytes) => {
        const reader = new ByteReader('a varint', bytes);
        let value: number;
        try {
          value = reader.varint();
        } catch (error) {
          expect(error).toBeInstanceOf(FormatInvalid);
          return;
        }
        expect(new ByteWriter().varint(value).finish()).toEqual(bytes.slice(0, reader.offset));
      }),
      { numRuns: 2000 },
    );
  });
});

describe('a reader refuses, and says where,', () => {
  it.each([
    ['a varint with a zero group at its end', read('8000', varint), 0],
    ['zero in two bytes', read('008000', (reader) => [reader.u8(), reader.varint()]), 1],
    ['2^53 as a varint', read('8080808080808010', varint), 0],
    ['a varint of nine bytes', read('808080808080808001', varint), 0],
    ['a varint that never ends', read('ffff', varint), 2],
    ['2^53 as a u64', read('0020000000000000', (reader) => reader.u64()), 0],
    ['2^64-1 as a u64', read('00ffffffffffffffff', (reader) => [reader.u8(), reader.u64()]), 1],
    ['a cut u32', read('000102', (reader) => reader.u32()), 3],
    ['trailing bytes', read('0001', (reader) => reader.u8()), 1],
    ['a length that does not fit', read('0500010203', (reader) => reader.bytes()), 0],
    ['a length of 2^53-1', read('ffffffffffffff0f00', (reader) => reader.bytes()), 0],
    ['text that is no UTF-8', read('02c328', (reader) => reader.text()), 0],
    ['text with half a surrogate pair', read('03eda080', (reader) => reader.text()), 0],
    ['text in an overlong form', read('02c0af', (reader) => reader.text()), 0],
    ['a flag of 2', read('02', (reader) => reader.flag()), 0],
    ['another magic', read('464b5347', (reader) => reader.expectAscii('FKRP')), 0],
    ['half a magic', read('464b', (reader) => reader.expectAscii('FKRP')), 0],
    ['another version', read('000002', (reader) => [reader.u8(), reader.expectU16(1, 'version')]), 1],
  ])('%s', (_, reading, offset) => {
    let thrown: unknown;
    try {
      reading();
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toBeInstanceOf(FormatInvalid);
    expect(thrown).toMatchObject({ code: 'FORMAT_INVALID', object: 'an object', offset });
  });

  it('counts that more than fill the object, before anything is allocated', () => {
    for (const value of [3, 2 ** 31, 2 ** 53 - 1]) {
      const bytes = new ByteWriter().varint(value).raw(new Uint8Array(40)).finish();
      expect(() => new ByteReader('a list', bytes).count(20)).toThrow(FormatInvalid);
    }
    const fits = new ByteWriter().varint(2).raw(new Uint8Array(40)).finish();
    expect(new ByteReader('a list', fits).count(20)).toBe(2);
  });
});

describe('a writer', () => {
  it.each([
    ['a negative number', (writer: ByteWriter) => writer.varint(-1)],
    ['a fraction', (writer: ByteWriter) => writer.varint(1.5)],
    ['2^53', (writer: ByteWriter) => writer.u64(2 ** 53)],
    ['not a number', (writer: ByteWriter) => writer.u64(Number.NaN)],
    ['256 as one byte', (writer: ByteWriter) => writer.u8(256)],
    ['2^16 as two bytes', (writer: ByteWriter) => writer.u16(2 ** 16)],
    ['2^32 as four bytes', (writer: ByteWriter) => writer.u32(2 ** 32)],
    ['-1 as four bytes', (writer: ByteWriter) => writer.u32(-1)],
  ])('refuses %s instead of writing another value', (_, writing) => {
    expect(() => writing(new ByteWriter())).toThrow(RangeError);
  });

  it('writes half a surrogate pair as the replacement character, for UTF-8 has no other place for it', () => {
    expect(toHex(new ByteWriter().text('a\ud800').finish())).toBe('0461efbfbd');
  });

  it('hands out copies: what is written later changes nothing', () => {
    const writer = new ByteWriter().u8(1);
    const first = writer.finish();
    writer.u8(2);
    expect([...first]).toEqual([1]);
    expect([...writer.finish()]).toEqual([1, 2]);
  });
});

it('bytes are the same or not, whatever kind of array holds them', () => {
  expect(sameBytes(Buffer.from('ab'), new TextEncoder().encode('ab'))).toBe(true);
  expect(sameBytes(Buffer.from('ab'), Buffer.from('abc'))).toBe(false);
  expect(toHex(Buffer.from('xabx').subarray(1, 3))).toBe('6162');
});
