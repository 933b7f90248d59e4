import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { toHex } from '../../replica/encoding.ts';
import {
  encodeManifest,
  flagged,
  flagOf,
  type Manifest,
  type ManifestPlace,
  openManifest,
  parseManifest,
  sealManifest,
} from '../../replica/manifest.ts';
import { anyManifest } from './arbitrary.ts';
import { everyDamage, expectStrict, refusal } from './damage.ts';
import { context, dataKey, filled, manifest } from './specimens.ts';

describe('a manifest', () => {
  const place: ManifestPlace = { context, seq: 77, tenure: 12 };
  const saltKey = filled(32, 0x0a);
  const seal = (value: Manifest, at: ManifestPlace = place, random?: Uint8Array) => {
    using key = dataKey();
    return sealManifest(key, saltKey, at, value, random);
  };
  const open = (sealed: Uint8Array, at: ManifestPlace = place) => {
    using key = dataKey();
    return openManifest(key, at, sealed);
  };

  it('comes back as it was written, sealed and bare', () => {
    fc.assert(
      fc.property(anyManifest, (value) => {
        const bytes = encodeManifest(value);
        expect(parseManifest(bytes, 'a manifest')).toEqual(value);
        expect(toHex(encodeManifest(parseManifest(bytes, 'a manifest')))).toBe(toHex(bytes));
        expect(open(seal(value))).toEqual(value);
      }),
    );
  });

  it('is read as another canonical manifest or refused when its plaintext was damaged', () => {
    expectStrict(encodeManifest(manifest), (bytes) => parseManifest(bytes, 'a manifest'), encodeManifest);
  });

  it('with remarks is read as another canonical one or refused when its plaintext was damaged', () => {
    const remarked = flagged({ ...manifest, remarks: [{ kind: 130, value: filled(2, 0x10) }] }, 'odd');
    expectStrict(encodeManifest(remarked), (bytes) => parseManifest(bytes, 'a manifest'), encodeManifest);
  });

  it('is flagged once, and of the version that older readers know where it is not', () => {
    expect([flagOf(manifest), encodeManifest(manifest)[0]]).toEqual([null, 1]);
    const twice = flagged(flagged(manifest, 'first'), 'second');
    expect([flagOf(twice), twice.remarks?.length, encodeManifest(twice)[0]]).toEqual(['second', 1, 2]);
  });

  it('never opens once it was damaged', () => {
    const codes = new Set<string>();
    for (const { what, bytes } of everyDamage(seal(manifest))) codes.add(refusal(() => open(bytes), what));
    expect([...codes].sort()).toEqual(['COMMITMENT_MISMATCH', 'FORMAT_INVALID', 'RECORD_TAMPERED']);
  });

  it.each<[string, ManifestPlace]>([
    ['entry', { ...place, seq: 78 }],
    ['tenure', { ...place, tenure: 13 }],
    ['epoch', { ...place, context: { ...context, epoch: 4 } }],
    ['machine', { ...place, context: { ...context, machineId: filled(16, 1) } }],
    ['repository', { ...place, context: { ...context, repositoryId: filled(16, 1) } }],
  ])('does not open in another %s', (what, other) => {
    expect(refusal(() => open(seal(manifest), other), what)).toBe('COMMITMENT_MISMATCH');
  });

  it('never shares its salt with another one, even when the random generator is stuck', () => {
    const stuck = filled(32, 0x05);
    const salts = [
      seal(manifest, place, stuck),
      seal({ ...manifest, readBytes: 1 }, place, stuck),
      seal(manifest, { ...place, seq: 78 }, stuck),
    ];
    expect(new Set(salts.map((sealed) => toHex(sealed.subarray(0, 32)))).size).toBe(3);
    expect(toHex(seal(manifest, place, stuck))).toBe(toHex(seal(manifest, place, stuck)));
  });

  const [disk] = manifest.disks;
  const [attachment] = manifest.attachments;
  if (disk === undefined || attachment === undefined) throw new Error('the specimen has a disk and an attachment');
  const other = { ...disk, diskId: filled(16, 0x99), label: 'another' };
  it.each<[string, Partial<Manifest>]>([
    ['two disks of one id', { disks: [disk, { ...other, diskId: disk.diskId }] }],
    ['two disks of one label', { disks: [disk, { ...other, label: disk.label }] }],
    ['a disk that is there and left out', { excluded: [{ label: disk.label, reason: '' }] }],
    ['a block size that is no power of two', { disks: [{ ...disk, blockSize: 65_537 }] }],
    ['a block size below 64 KiB', { disks: [{ ...disk, blockSize: 32_768 }] }],
    ['a block size above 1 MiB', { disks: [{ ...disk, blockSize: 2 ** 21 }] }],
    ['more than 2^26 blocks', { disks: [{ ...disk, capacityBytes: 2 ** 26 * 65_536 + 1 }] }],
    ['two attachments of one name', { attachments: [attachment, attachment] }],
    ['an attachment that leaves its folder', { attachments: [{ ...attachment, name: '../machine.xml' }] }],
    ['an attachment named ..', { attachments: [{ ...attachment, name: '..' }] }],
    ['an attachment with a chunk too few', { attachments: [{ ...attachment, chunks: attachment.chunks.slice(1) }] }],
    ['an attachment with a chunk too many', { attachments: [{ ...attachment, length: 262_144 }] }],
    ['an empty remark', { remarks: [{ kind: 2, value: new Uint8Array() }] }],
    ['a remark of kind 0', { remarks: [{ kind: 0, value: filled(1, 1) }] }],
    ['remarks out of order', { remarks: [3, 2].map((kind) => ({ kind, value: filled(1, 1) })) }],
    ['a flag that is no text', { remarks: [{ kind: 1, value: filled(1, 0xff) }] }],
    ['an attachment of 2^53-1 bytes', { attachments: [{ ...attachment, length: 2 ** 53 - 1 }] }],
  ])('with %s is refused by readers, and never sealed', (what, change) => {
    const value = { ...manifest, ...change };
    expect(refusal(() => parseManifest(encodeManifest(value), 'a manifest'), what)).toBe('FORMAT_INVALID');
    expect(refusal(() => seal(value), what)).toBe('FORMAT_INVALID');
  });
});
