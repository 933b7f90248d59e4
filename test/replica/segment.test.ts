import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { sealingKeys, sealRecordInto, sha256 } from '../../crypto/suite.ts';
import { FormatInvalid, toHex } from '../../replica/encoding.ts';
import {
  codec,
  type FooterRecord,
  parseSegmentHeader,
  recordType,
  type SegmentHeader,
  SegmentOpener,
  sealSegment,
  segmentPreambleBytes,
  type UnsealedRecord,
} from '../../replica/segment.ts';
import { bytesOf } from './arbitrary.ts';
import { everyDamage, everyLie, joined, refusal } from './damage.ts';
import {
  attachmentRecord,
  context,
  dataKey,
  dataRecord,
  diskId,
  filled,
  header,
  otherDiskId,
  pageRecord,
} from './specimens.ts';

const saltKey = filled(32, 0x0a);
const stuck = filled(32, 0x05);

function seal(records: readonly UnsealedRecord[], at: SegmentHeader = header): Uint8Array {
  using key = dataKey();
  return sealSegment(key, saltKey, at, records, { random: stuck }).bytes;
}

/** A child page, its parent, two blocks, a chunk. */
function specimen(): readonly UnsealedRecord[] {
  return [
    dataRecord(10, 2, filled(32, 0xaa)),
    pageRecord(0, 0, filled(20, 0xbb)),
    pageRecord(1, 0, joined(filled(5, 0xcc), filled(16, 0)), [{ at: 5, record: 1 }]),
    attachmentRecord(0, 1, filled(9, 0xdd)),
    { ...dataRecord(99, 1, filled(16, 0xee)), diskId: otherDiskId },
  ];
}

/** Everything that a segment says, read the way a salvage would. */
function readAll(
  bytes: Uint8Array,
  expected: SegmentHeader = header,
): readonly (FooterRecord & { body: Uint8Array })[] {
  using key = dataKey();
  using opener = SegmentOpener.open(key, expected, bytes, 'segment');
  return opener.openFooter(bytes).map((record) => {
    const sealed = bytes.subarray(record.offset, record.offset + record.length);
    return { ...record, body: opener.openBody(record.record, record, sealed) };
  });
}

const anyRecord: fc.Arbitrary<UnsealedRecord> = fc.oneof(
  fc
    .tuple(
      fc.nat(),
      fc.integer({ min: 1, max: 4 }),
      fc.uint8Array({ minLength: 1, maxLength: 40 }),
      fc.constantFrom(diskId, otherDiskId),
    )
    .map(([first, count, block, disk]) => ({
      ...dataRecord(first, count, joined(...Array.from({ length: count }, () => block))),
      diskId: disk,
    })),
  fc
    .tuple(fc.integer({ min: 1, max: 4 }), fc.uint8Array({ maxLength: 40 }))
    .map(([count, body]) => ({ ...dataRecord(3, count, filled(64 * count, 1)), codec: codec.zstd, body })),
  fc
    .tuple(fc.nat({ max: 4 }), fc.nat(), fc.uint8Array({ maxLength: 40 }))
    .map(([level, first, body]) => pageRecord(level, first, body)),
  fc
    .tuple(fc.nat({ max: 9 }), fc.uint8Array({ maxLength: 40 }))
    .map(([chunk, body]) => attachmentRecord(chunk, 10, body)),
);

describe('a segment', () => {
  it('gives back every record, bound to what it was', () => {
    fc.assert(
      fc.property(fc.array(anyRecord, { minLength: 1, maxLength: 20 }), (records) => {
        const read = readAll(seal(records));
        expect(read.length).toBe(records.length);
        read.forEach((found, i) => {
          const {
            body,
            digests,
            diskId: disk,
            childDigests: _,
            ...rest
          } = records[i] ?? pageRecord(0, 0, filled(1, 0));
          expect(found).toMatchObject({ ...rest, record: i });
          expect([found.body, found.digests, found.diskId].map(toHex)).toEqual([body, digests, disk].map(toHex));
        });
      }),
    );
  });

  it('is the same bytes whenever it is sealed from the same, and lists its own hash', () => {
    using key = dataKey();
    const sealed = sealSegment(key, saltKey, header, specimen(), { random: stuck });
    expect(toHex(sealed.bytes)).toBe(toHex(seal(specimen())));
    expect(toHex(sealed.sha256)).toBe(toHex(sha256(sealed.bytes)));
  });

  it('holds in a page the digests of the pages that it refers to', () => {
    using key = dataKey();
    const { bytes, pageDigests } = sealSegment(key, saltKey, header, specimen(), { random: stuck });
    const [, child, parent] = readAll(bytes);
    expect([...pageDigests.keys()]).toEqual([1, 2]);
    expect(toHex(parent?.body.subarray(5) ?? filled(1, 0))).toBe(toHex(pageDigests.get(1) ?? filled(1, 0)));
    const sealedChild = bytes.subarray(child?.offset ?? 0, (child?.offset ?? 0) + (child?.length ?? 0));
    expect(toHex(sha256(sealedChild).subarray(0, 16))).toBe(toHex(pageDigests.get(1) ?? filled(1, 0)));
  });

  it('is not sealed with a page that refers to a later record, to data, or to nothing', () => {
    const parent = (record: number): UnsealedRecord => pageRecord(1, 0, filled(16, 0), [{ at: 0, record }]);
    for (const record of [0, 1, 2, 9]) {
      expect(() => seal([dataRecord(0, 1, filled(16, 1)), parent(record), pageRecord(0, 0, filled(3, 1))])).toThrow();
    }
  });

  it('is not sealed with more records than a reader takes', () => {
    const many = Array.from({ length: 4097 }, (_, i) => dataRecord(i, 1, filled(1, 1)));
    expect(readAll(seal(many.slice(0, 4096))).length).toBe(4096);
    expect(() => seal(many)).toThrow('4097 records');
  });
});

describe('a damaged segment', () => {
  const whole = seal(specimen());

  it('never opens as if nothing had happened: every bit, every length, every removed or added byte', () => {
    const codes = new Set<string>();
    for (const { what, bytes } of everyDamage(whole)) codes.add(refusal(() => readAll(bytes), what));
    const known = ['FORMAT_INVALID', 'SEGMENT_MISPLACED', 'COMMITMENT_MISMATCH', 'RECORD_TAMPERED'];
    expect([...codes].sort()).toEqual(known.sort());
  });

  it('refuses counts and lengths that lie, wherever they stand', () => {
    for (const { what, bytes } of everyLie(whole)) refusal(() => readAll(bytes), what);
  });

  it('whose header was altered is refused before anything is decrypted', () => {
    using key = dataKey();
    for (const { what, bytes } of everyDamage(whole.slice(0, segmentPreambleBytes))) {
      if (
        bytes.length > segmentPreambleBytes &&
        toHex(bytes.subarray(0, segmentPreambleBytes)) === toHex(whole.subarray(0, segmentPreambleBytes))
      )
        continue;
      const code = refusal(() => SegmentOpener.open(key, header, bytes, 'segment'), what);
      expect(['FORMAT_INVALID', 'SEGMENT_MISPLACED', 'COMMITMENT_MISMATCH']).toContain(code);
    }
  });

  it.each([
    ['of another number', { ...header, number: 6 }, 'SEGMENT_MISPLACED'],
    ['of another tenure', { ...header, tenure: 13 }, 'SEGMENT_MISPLACED'],
    ['of another machine', { ...header, context: { ...context, machineId: filled(16, 0x23) } }, 'SEGMENT_MISPLACED'],
    [
      'of another repository',
      { ...header, context: { ...context, repositoryId: filled(16, 0x12) } },
      'SEGMENT_MISPLACED',
    ],
    ['of another key epoch', { ...header, context: { ...context, epoch: 4 } }, 'COMMITMENT_MISMATCH'],
  ])('%s in its place is noticed', (_, other, code) => {
    expect(refusal(() => readAll(seal(specimen(), other)), 'swapped')).toBe(code);
  });

  it('rewritten to claim another place is noticed by its commitment', () => {
    const moved = Uint8Array.from(seal(specimen(), { ...header, number: 6 }));
    new DataView(moved.buffer).setUint32(48, 5);
    expect(parseSegmentHeader(moved, 'segment').number).toBe(5);
    expect(refusal(() => readAll(moved), 'moved')).toBe('COMMITMENT_MISMATCH');
  });

  it('under another data key is noticed by its commitment', () => {
    using other = dataKey();
    other.bytes.fill(0x08);
    expect(refusal(() => SegmentOpener.open(other, header, whole, 'segment'), 'key')).toBe('COMMITMENT_MISMATCH');
  });
});

describe('a record', () => {
  const records = [dataRecord(0, 1, filled(16, 1)), dataRecord(1, 1, filled(16, 2)), pageRecord(0, 0, filled(16, 3))];
  const whole = seal(records);
  const read = readAll(whole);

  it('opens nowhere but in its own place', () => {
    using key = dataKey();
    using opener = SegmentOpener.open(key, header, whole, 'segment');
    const [first, second] = read;
    if (first === undefined || second === undefined) return expect.fail('no records');
    const sealed = whole.subarray(first.offset, first.offset + first.length);
    const open = (record: number, binding: Partial<FooterRecord>) => () =>
      opener.openBody(record, { ...first, ...binding }, sealed);
    expect(toHex(open(0, {})())).toBe('01'.repeat(16));
    expect(refusal(open(1, {}), 'another slot')).toBe('RECORD_TAMPERED');
    const others: readonly Partial<FooterRecord>[] = [
      { diskId: otherDiskId },
      { firstBlock: 1 },
      { blockCount: 2 },
      { blockSize: 32 },
      { plaintextLength: 17 },
      { codec: codec.zstd },
      { type: recordType.page },
      { type: recordType.attachment },
    ];
    for (const other of others) {
      expect(refusal(open(0, other), JSON.stringify(Object.keys(other)))).toBe('RECORD_TAMPERED');
    }
  });

  it('does not change places with another, nor with one of another segment', () => {
    const [first, second] = read;
    if (first === undefined || second === undefined) return expect.fail('no records');
    const swapped = Uint8Array.from(whole);
    swapped.set(whole.subarray(second.offset, second.offset + second.length), first.offset);
    swapped.set(whole.subarray(first.offset, first.offset + first.length), second.offset);
    expect(refusal(() => readAll(swapped), 'swapped')).toBe('RECORD_TAMPERED');
    const other = seal(records, { ...header, number: 6 });
    const spliced = joined(whole.subarray(0, segmentPreambleBytes), other.subarray(segmentPreambleBytes));
    expect(refusal(() => readAll(spliced), 'spliced')).toBe('RECORD_TAMPERED');
  });
});

describe('a stuck random generator', () => {
  /** Key, nonce and salt that a segment was sealed with. */
  function secrets(bytes: Uint8Array): { readonly salt: string; readonly key: string; readonly nonce: string } {
    using key = dataKey();
    using keys = sealingKeys(key, context, 'failkit/v1/segment', bytes.subarray(0, 96));
    return { salt: toHex(bytes.subarray(64, 96)), key: toHex(keys.key), nonce: toHex(keys.baseNonce) };
  }

  it('never lets two segments with other content share salt, key and nonce', () => {
    const page = pageRecord(0, 0, filled(16, 3));
    const variants = [
      [dataRecord(0, 1, filled(16, 1))],
      [dataRecord(0, 1, filled(16, 2))],
      [dataRecord(1, 1, filled(16, 1))],
      [{ ...dataRecord(0, 1, filled(16, 1)), diskId: otherDiskId }],
      [{ ...dataRecord(0, 1, filled(16, 1)), digests: filled(16, 9) }],
      [{ ...dataRecord(0, 1, filled(16, 1)), codec: codec.zstd }],
      [{ ...dataRecord(0, 1, filled(16, 1)), blockSize: 32 }],
      [dataRecord(0, 2, filled(16, 1))],
      [dataRecord(0, 1, filled(16, 1)), page],
      [page, dataRecord(0, 1, filled(16, 1))],
      [{ ...page, firstBlock: 64 }],
      [{ ...page, type: recordType.attachment }],
      [{ ...page, type: recordType.attachment, plaintextLength: 17 }],
    ];
    const seen = variants.map((records) => secrets(seal(records)));
    for (const field of ['salt', 'key', 'nonce'] as const) {
      expect(new Set(seen.map((secret) => secret[field])).size).toBe(variants.length);
    }
  });

  it('nor two places for the same content', () => {
    const records = [dataRecord(0, 1, filled(16, 1))];
    const places = [header, { ...header, number: 6 }, { ...header, tenure: 13 }];
    expect(new Set(places.map((at) => secrets(seal(records, at)).key)).size).toBe(3);
  });

  it('makes random content and place give distinct keys, too', () => {
    const keys = new Map<string, string>();
    fc.assert(
      fc.property(bytesOf(8), fc.nat({ max: 3 }), fc.nat({ max: 3 }), (body, first, number) => {
        const what = `${toHex(body)} ${first} ${number}`;
        const { key } = secrets(seal([dataRecord(first, 1, body)], { ...header, number }));
        expect(keys.get(key) ?? what).toBe(what);
        keys.set(key, what);
      }),
    );
  });
});

describe('a footer that an honest key sealed but that is not canonical', () => {
  const id = toHex(diskId);
  const record = (type: string, codecByte: string, disk: string): string =>
    `${type}${codecByte}${disk}0001${'10'}${'20'}`;
  const digest = '00'.repeat(16);

  /** One record of 16 bytes and the given footer, sealed by hand. */
  function withFooter(footerHex: string, count = 1): Uint8Array {
    using key = dataKey();
    const footer = Buffer.from(footerHex, 'hex');
    const model = seal([dataRecord(0, 1, filled(16, 1))]);
    using keys = sealingKeys(key, context, 'failkit/v1/segment', model.subarray(0, 96));
    const binding = new Uint8Array(42);
    const view = new DataView(binding.buffer);
    binding[0] = 4;
    view.setUint32(18, 0xffffffff);
    view.setUint32(30, count);
    view.setUint32(38, footer.length);
    const sealed = new Uint8Array(footer.length + 16);
    sealRecordInto(sealed, keys, 0xffffffff, binding, footer);
    const trailer = new Uint8Array(12);
    new DataView(trailer.buffer).setUint32(0, sealed.length);
    new DataView(trailer.buffer).setUint32(4, count);
    trailer.set(Buffer.from('GSKF'), 8);
    return joined(model.subarray(0, segmentPreambleBytes + 32), sealed, trailer);
  }

  it('opens when it is', () => {
    expect(readAll(withFooter(`0101${id}01${record('01', '00', '00')}${digest}`)).length).toBe(1);
  });

  it.each([
    ['another version', `0201${id}01${record('01', '00', '00')}${digest}`, 0],
    ['a disk twice', `0102${id}${id}01${record('01', '00', '00')}${digest}`, undefined],
    ['a disk that no record has', `0102${id}${toHex(otherDiskId)}01${record('01', '00', '00')}${digest}`, undefined],
    ['disks not in order of first use', `0102${toHex(otherDiskId)}${id}01${record('01', '00', '01')}${digest}`, 35],
    ['a disk index outside the table', `0101${id}01${record('01', '00', '01')}${digest}`, 21],
    ['another record count than the trailer', `0101${id}02${record('01', '00', '00')}${digest}`, undefined],
    ['an unknown record type', `0101${id}01${record('05', '00', '00')}${digest}`, 19],
    ['a footer in the footer', `0101${id}01${record('04', '00', '00')}`, 19],
    ['an unknown codec', `0101${id}01${record('01', '02', '00')}${digest}`, 20],
    ['a compressed page', `0101${id}01${record('02', '01', '00')}`, 20],
    ['a stored length below a tag', `0101${id}01010000000110${'0f'}${digest}`, undefined],
    ['stored lengths that do not add up', `0101${id}010100000001${'10'}${'21'}${digest}`, undefined],
    ['digests that are missing', `0101${id}01${record('01', '00', '00')}`, undefined],
    ['2^40 blocks', `0101${id}0101000000808080808020${'10'}${'20'}${digest}`, undefined],
    ['trailing bytes', `0101${id}01${record('01', '00', '00')}${digest}00`, undefined],
    ['nothing', '', 0],
  ])('is refused: %s', (what, footer, offset) => {
    const read = (): unknown => readAll(withFooter(footer));
    expect(refusal(read, what)).toBe('FORMAT_INVALID');
    if (offset !== undefined) expect(read).toThrow(expect.objectContaining({ object: 'segment footer', offset }));
  });

  it('is refused when it lists no records or too many', () => {
    expect(() => readAll(withFooter('010000', 0))).toThrow(FormatInvalid);
    expect(() => readAll(withFooter(`0101${id}8120`, 4097))).toThrow(FormatInvalid);
  });
});
