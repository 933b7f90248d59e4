import { createHash, createHmac } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { CommitmentMismatch, RecordTampered } from '../../crypto/errors.ts';
import {
  blockDigest,
  checkCommitment,
  type DerivationLabel,
  derive,
  hedgedSalt,
  openRecord,
  pageDigest,
  recordNonce,
  SealingKeys,
  sealingKeys,
  sealRecordInto,
} from '../../crypto/suite.ts';
import { everyDamage, joined, refusal } from './damage.ts';
import { context, dataKey, filled } from './specimens.ts';

const hex = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text, 'hex'));
const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
const ascii = (text: string): Uint8Array => Buffer.from(text, 'latin1');

/** RFC 5869, from HMAC alone. */
function hkdf(ikm: Uint8Array, salt: Uint8Array, info: Uint8Array, length: number): Uint8Array {
  const pseudorandomKey = createHmac('sha256', salt).update(ikm).digest();
  let block = new Uint8Array();
  let output = new Uint8Array();
  for (let i = 1; output.length < length; i++) {
    block = Uint8Array.from(
      createHmac('sha256', pseudorandomKey)
        .update(joined(block, info, [i]))
        .digest(),
    );
    output = Uint8Array.from(joined(output, block));
  }
  return output.slice(0, length);
}

describe('derivation', () => {
  it('is checked against an HKDF that gives the known answer of RFC 5869, test case 1', () => {
    const [salt, info] = [hex('000102030405060708090a0b0c'), hex('f0f1f2f3f4f5f6f7f8f9')];
    const okm = '3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865';
    expect(hexOf(hkdf(filled(22, 0x0b), salt, info, 42))).toBe(okm);
  });

  it.each<[DerivationLabel, number]>([
    ['failkit/v1/data-key-commitment', 32],
    ['failkit/v1/key-record-mac', 32],
    ['failkit/v1/machine-keys', 32],
    ['failkit/v1/segment', 76],
    ['failkit/v1/manifest', 76],
  ])('of %s is what the format says', (label, length) => {
    using key = dataKey();
    const info = filled(32, 0x4d);
    const place = joined(ascii('failkit/v1/data-key\0'), context.repositoryId, context.machineId, [0, 0, 0, 3]);
    const salt = createHash('sha256').update(place).digest();
    const expected = hkdf(filled(32, 0x07), salt, joined(ascii(`${label}\0`), info), length);
    expect(hexOf(derive(key, context, label, info, length))).toBe(hexOf(expected));
  });

  it('gives other keys for another repository, machine, epoch, label or context', () => {
    using key = dataKey();
    const [label, info] = ['failkit/v1/segment', filled(32, 1)] as const;
    const derived = [
      derive(key, context, label, info, 32),
      derive(key, { ...context, repositoryId: filled(16, 0x12) }, label, info, 32),
      derive(key, { ...context, machineId: filled(16, 0x23) }, label, info, 32),
      derive(key, { ...context, epoch: 4 }, label, info, 32),
      derive(key, context, 'failkit/v1/manifest', info, 32),
      derive(key, context, label, filled(32, 2), 32),
      derive(key, context, label, filled(31, 1), 32),
    ];
    expect(new Set(derived.map(hexOf)).size).toBe(derived.length);
  });

  it('parts of a header make key, nonce and commitment, in this order', () => {
    using key = dataKey();
    const header = filled(96, 0x31);
    using keys = sealingKeys(key, context, 'failkit/v1/segment', header);
    const info = createHash('sha256').update(header).digest();
    const all = derive(key, context, 'failkit/v1/segment', info, 76);
    expect(hexOf(joined(keys.key, keys.baseNonce, keys.commitment))).toBe(hexOf(all));
  });
});

describe('sealing', () => {
  it('gives the known answers of AES-256-GCM (McGrew and Viega, test cases 14 and 16)', () => {
    using zero = new SealingKeys(new Uint8Array(76));
    const into = new Uint8Array(32);
    expect(sealRecordInto(into, zero, 0, new Uint8Array(), new Uint8Array(16))).toBe(32);
    expect(hexOf(into)).toBe('cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919');
    const key = 'feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308';
    using keys = new SealingKeys(joined(hex(`${key}cafebabefacedbaddecaf888`), new Uint8Array(32)));
    const body = hex(
      'd9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39',
    );
    const sealed = new Uint8Array(body.length + 16);
    sealRecordInto(sealed, keys, 0, hex('feedfacedeadbeeffeedfacedeadbeefabaddad2'), body);
    expect(hexOf(sealed)).toBe(
      '522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662' +
        '76fc6ece0f4e1768cddf8853bb2d551b',
    );
  });

  it('XORs the record number into the last four bytes of the nonce, so that no two records share one', () => {
    const base = hex('000102030405060708090aff');
    expect(hexOf(recordNonce(base, 0))).toBe('000102030405060708090aff');
    expect(hexOf(recordNonce(base, 0x01020304))).toBe('0001020304050607090b09fb');
    expect(hexOf(recordNonce(base, 0xffffffff))).toBe('0001020304050607f7f6f500');
    expect(hexOf(base)).toBe('000102030405060708090aff');
    const numbers = [...Array.from({ length: 4096 }, (_, i) => i), 0xffffffff];
    expect(new Set(numbers.map((number) => hexOf(recordNonce(base, number)))).size).toBe(numbers.length);
  });

  const keys = (): SealingKeys => new SealingKeys(filled(76, 0x42));
  const aad = filled(42, 0x61);
  const sealed = new Uint8Array(21);
  sealRecordInto(sealed, keys(), 7, aad, ascii('block'));

  it('opens what was sealed, an empty body included', () => {
    expect(Buffer.from(openRecord(keys(), 7, aad, sealed, 'here')).toString()).toBe('block');
    const empty = new Uint8Array(16);
    sealRecordInto(empty, keys(), 8, aad, new Uint8Array());
    expect(openRecord(keys(), 8, aad, empty, 'here').length).toBe(0);
  });

  it('never opens a record that was damaged, moved to another number, or bound to something else', () => {
    for (const { what, bytes } of everyDamage(sealed)) {
      expect(refusal(() => openRecord(keys(), 7, aad, bytes, 'here'), what)).toBe('RECORD_TAMPERED');
    }
    for (const { what, bytes } of everyDamage(aad)) {
      expect(refusal(() => openRecord(keys(), 7, bytes, sealed, 'here'), what)).toBe('RECORD_TAMPERED');
    }
    expect(() => openRecord(keys(), 6, aad, sealed, 'here')).toThrow(RecordTampered);
    using others = new SealingKeys(filled(76, 0x43));
    expect(() => openRecord(others, 7, aad, sealed, 'here')).toThrow(RecordTampered);
  });

  it('says where a record was refused, and shows nothing of what it holds', () => {
    const altered = Uint8Array.from(sealed).fill(0, 20);
    try {
      openRecord(keys(), 7, aad, altered, 'segment 12.5 record 7');
      expect.fail('a damaged record was opened');
    } catch (error) {
      expect(error).toBeInstanceOf(RecordTampered);
      expect(String(error)).toContain('segment 12.5 record 7');
      expect(JSON.stringify(error, Object.getOwnPropertyNames(error))).not.toContain('bloc');
    }
  });

  it('zeroes key and nonce when it is done', () => {
    const used = keys();
    used[Symbol.dispose]();
    expect(hexOf(used.key)).toBe('00'.repeat(32));
    expect(hexOf(used.baseNonce)).toBe('00'.repeat(12));
  });

  it('compares the commitment, whatever its length', () => {
    const good = filled(32, 0x42);
    expect(() => checkCommitment(keys(), good, 'here')).not.toThrow();
    for (const { what, bytes } of everyDamage(good)) {
      // A repeated byte that loses one and gains one is the same again.
      if (hexOf(bytes) === hexOf(good)) continue;
      expect(refusal(() => checkCommitment(keys(), bytes, 'here'), what)).toBe(new CommitmentMismatch('').code);
    }
  });
});

describe('hedged salts', () => {
  const salt = (header: Uint8Array, hashes: readonly Uint8Array[], random?: Uint8Array): string =>
    hexOf(hedgedSalt(filled(32, 0x0a), 'failkit/v1/segment-salt', header, hashes, random));
  const stuck = filled(32, 0x05);
  const hashes = [filled(32, 1), filled(32, 2)];

  it('are the HMAC that the format says', () => {
    const message = joined(ascii('failkit/v1/segment-salt\0'), stuck, filled(96, 3), ...hashes);
    expect(salt(filled(96, 3), hashes, stuck)).toBe(
      createHmac('sha256', filled(32, 0x0a)).update(message).digest('hex'),
    );
  });

  it('differ under a stuck random generator when anything that is sealed differs', () => {
    const all = [
      salt(filled(96, 3), hashes, stuck),
      salt(filled(96, 4), hashes, stuck),
      salt(filled(96, 3), [filled(32, 1)], stuck),
      salt(filled(96, 3), [filled(32, 2), filled(32, 1)], stuck),
      salt(filled(96, 3), [...hashes, filled(32, 2)], stuck),
      hexOf(hedgedSalt(filled(32, 0x0b), 'failkit/v1/segment-salt', filled(96, 3), hashes, stuck)),
      hexOf(hedgedSalt(filled(32, 0x0a), 'failkit/v1/manifest-salt', filled(96, 3), hashes, stuck)),
    ];
    expect(new Set(all).size).toBe(all.length);
  });

  it('differ for the same bytes when the random generator works', () => {
    expect(salt(filled(96, 3), hashes)).not.toBe(salt(filled(96, 3), hashes));
  });
});

describe('digests', () => {
  it('are the first half of an HMAC over a block, of a hash over a page', () => {
    const [key, block] = [filled(32, 0x09), filled(64, 0x6c)];
    expect(hexOf(blockDigest(key, block))).toBe(createHmac('sha256', key).update(block).digest('hex').slice(0, 32));
    expect(hexOf(pageDigest(block))).toBe(createHash('sha256').update(block).digest('hex').slice(0, 32));
  });
});
