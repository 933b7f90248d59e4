import { createHash } from 'node:crypto';
import { blockDigest, sealingKeys, sealRecordInto } from '../../crypto/suite.ts';
import { type Control, encodeControl } from '../../replica/control.ts';
import { toHex } from '../../replica/encoding.ts';
import { encodeManifest, flagged, sealManifest } from '../../replica/manifest.ts';
import { encodeInner, encodeLeaf, type Run } from '../../replica/page.ts';
import { type SegmentHeader, sealSegment, type UnsealedRecord } from '../../replica/segment.ts';
import { joined } from './damage.ts';
import {
  attachmentRecord,
  context,
  createdMs,
  dataKey,
  dataRecord,
  diskId,
  filled,
  header,
  machineId,
  manifest,
  otherDiskId,
  pageRecord,
  repositoryId,
} from './specimens.ts';
import {
  bytesGiven,
  changed,
  cut,
  flipped,
  keyed,
  longer,
  saltKey,
  stuck,
  type VectorCase,
  withBroken,
} from './vector-case.ts';
import type { Given } from './vector-readers.ts';

/** Sealed objects, and the control data that an entry holds: sections 6, 7 and 8. */

function seal(records: readonly UnsealedRecord[], at: SegmentHeader = header): Uint8Array {
  using key = dataKey();
  return sealSegment(key, saltKey, at, records, { random: stuck }).bytes;
}

const segmentRecords = (): readonly UnsealedRecord[] => [
  dataRecord(10, 2, joined(filled(16, 0xaa), filled(16, 0xab))),
  pageRecord(0, 0, filled(20, 0xbb)),
  pageRecord(1, 0, joined(filled(5, 0xcc), filled(16, 0)), [{ at: 5, record: 1 }]),
  attachmentRecord(0, 1, filled(9, 0xdd)),
  { ...dataRecord(99, 1, filled(16, 0xee)), diskId: otherDiskId },
];

export function segments(): readonly VectorCase[] {
  const given: Given = { ...keyed, tenure: 12, number: 5 };
  const block = filled(16, 0xaa);
  const one = seal([{ ...dataRecord(10, 1, block), digests: blockDigest(filled(32, 0x09), block) }]);
  const bytes = seal(segmentRecords());
  const smallest: VectorCase = {
    name: 'segment-one-block',
    about: 'A segment with one block of 16 bytes (no real disk has so small ones): the worked example of section 10.',
    section: '6',
    kind: 'segment',
    given: { ...given, ...bytesGiven(one) },
  };
  const good: VectorCase = {
    ...smallest,
    name: 'segment',
    about:
      'Records of every type: two blocks, a leaf, the page above it (with the digest of the leaf at offset 5), an attachment chunk, a block of another disk.',
    given: { ...given, ...bytesGiven(bytes) },
  };
  const [first, second] = [bytes.subarray(128, 176), bytes.subarray(176, 212)];
  const elsewhere = seal(segmentRecords(), { ...header, number: 6 });
  return [
    smallest,
    ...withBroken(good, {
      number: ['The segment under the name of another number.', { number: 6 }],
      tenure: ['The segment under another tenure.', { tenure: 13 }],
      machine: ['The segment of another machine.', { machineId: '99'.repeat(16) }],
      repository: ['The segment of another repository.', { repositoryId: '99'.repeat(16) }],
      'data-key': ['Another data key.', { dataKey: '08'.repeat(32) }],
      epoch: ['The data key of another epoch.', { epoch: 4 }],
      renumbered: ['Segment 6, rewritten to say that it is segment 5.', changed(elsewhere, 51, 5)],
      version: ['Version 2.', changed(bytes, 5, 2)],
      flags: ['An unknown flag.', changed(bytes, 59, 1)],
      salt: ['One bit of the salt flipped.', flipped(bytes, 64)],
      commitment: ['One bit of the commitment flipped.', flipped(bytes, 96)],
      'record-flipped': ['One bit of a record flipped.', flipped(bytes, 130)],
      'records-swapped': [
        'The first two records have changed places.',
        bytesGiven(joined(bytes.subarray(0, 128), second, first, bytes.subarray(212))),
      ],
      'record-of-another-segment': [
        'Record 0 of segment 6 in segment 5.',
        bytesGiven(joined(bytes.subarray(0, 128), elsewhere.subarray(128, 176), bytes.subarray(176))),
      ],
      'footer-flipped': ['One bit of the footer flipped.', flipped(bytes, -30)],
      'footer-length': ['A footer longer than the segment.', changed(bytes, -12, 0xff, 0xff, 0xff, 0xff)],
      'record-count': ['The trailer promises a record less.', changed(bytes, -5, 4)],
      'no-records': ['The trailer promises no records.', changed(bytes, -8, 0, 0, 0, 0)],
      cut: ['The last byte is missing.', cut(bytes)],
      longer: ['A byte too many.', longer(bytes)],
      'footer-not-canonical': [
        'An authentic footer that lists a disk which no record has.',
        bytesGiven(withForeignDisk(one)),
      ],
    }),
  ];
}

/** The segment with another footer, sealed with the right key: only a strict parser notices. */
function withForeignDisk(segment: Uint8Array): Uint8Array {
  using key = dataKey();
  using keys = sealingKeys(key, context, 'failkit/v1/segment', segment.subarray(0, 96));
  const footer = joined(
    [1, 2],
    diskId,
    otherDiskId,
    [1, 1, 0, 0, 10, 1, 16, 32],
    createHash('sha256').update(Uint8Array.of(0)).digest().subarray(0, 16),
  );
  const binding = Buffer.alloc(42);
  binding.writeUInt8(4, 0);
  binding.writeUInt32BE(0xffffffff, 18);
  binding.writeUInt32BE(1, 30);
  binding.writeUInt32BE(footer.length, 38);
  const sealed = new Uint8Array(footer.length + 16);
  sealRecordInto(sealed, keys, 0xffffffff, binding, footer);
  return joined(segment.subarray(0, 160), sealed, [0, 0, 0, sealed.length], [0, 0, 0, 1], Buffer.from('GSKF'));
}

export function pages(): readonly VectorCase[] {
  const at = (number: number, record: number) => ({
    tenure: 12,
    number,
    record,
    offset: 128 + record * 1000,
    length: 500,
  });
  const run = (first: number, count: number, change: Partial<Run>): Run => ({
    ...{ first, count, at: at(5, 0), codec: 1, inside: 0, recordBlocks: count, digests: filled(16 * count, first) },
    ...change,
  });
  const runs = [
    run(642, 2, { recordBlocks: 4 }),
    run(645, 1, { inside: 3, recordBlocks: 4 }),
    run(646, 1, { at: at(3, 7), codec: 0 }),
  ];
  const leafBytes = encodeLeaf(640, runs);
  const leaf: VectorCase = {
    name: 'page-leaf',
    about:
      'A leaf: two blocks of a record whose third was overwritten since, its fourth, and a block of another segment.',
    section: '7',
    kind: 'page',
    given: { level: 0, firstBlock: 640, ...bytesGiven(leafBytes) },
  };
  const inner = encodeInner(
    1,
    [0, 1, 63].map((child) => ({ ...at(child === 1 ? 3 : 5, child), child, digest: filled(16, child) })),
  ).bytes;
  const innerCase: VectorCase = {
    ...leaf,
    name: 'page-inner',
    about: 'An inner page of level 1 with children 0, 1 and 63.',
    given: { level: 1, firstBlock: 4096, ...bytesGiven(inner) },
  };
  const joinable = [run(642, 1, { recordBlocks: 2 }), run(643, 1, { inside: 1, recordBlocks: 2 })];
  return [
    ...withBroken(leaf, {
      level: ['A leaf where an inner page belongs.', { level: 1 }],
      version: ['Version 2.', changed(leafBytes, 0, 2)],
      'run-too-far': [
        'A record that reaches into the next leaf.',
        { firstBlock: 640, ...bytesGiven(encodeLeaf(640, [run(703, 1, { recordBlocks: 2 })])) },
      ],
      'run-twice': ['Two runs that continue each other and should be one.', bytesGiven(encodeLeaf(640, joinable))],
      'no-runs': ['No runs.', bytesGiven(joined([1, 0, 0, 0]))],
      'lying-count': ['127 runs are promised.', changed(leafBytes, 7, 0x7f)],
      'unused-segment': [
        'A segment in the table that nothing refers to.',
        bytesGiven(joined([1, 0, 2, 12, 3, 12, 5], encodeLeaf(640, runs.slice(0, 2)).subarray(5))),
      ],
      'segments-disordered': ['A table that is not ascending.', changed(leafBytes, 3, 12, 5, 12, 3)],
      'long-varint': [
        'A varint in two bytes where one would do.',
        bytesGiven(joined(leafBytes.subarray(0, 8), [0x82, 0x00], leafBytes.subarray(9))),
      ],
      longer: ['A byte too many.', longer(leafBytes)],
    }),
    ...withBroken(innerCase, {
      'no-children': ['No children.', bytesGiven(joined([1, 1, 0], new Uint8Array(8)))],
      cut: ['The last byte is missing.', cut(inner)],
    }),
  ];
}

export function manifests(): readonly VectorCase[] {
  using key = dataKey();
  const place = { context, seq: 77, tenure: 12 };
  const bytes = sealManifest(key, saltKey, place, manifest, stuck);
  const about = 'A manifest: two disks, one that was left out, one attachment in two chunks.';
  const good: VectorCase = {
    name: 'manifest',
    about,
    section: '8.1',
    kind: 'manifest',
    given: { ...keyed, seq: 77, tenure: 12, ...bytesGiven(bytes) },
  };
  const plaintext = encodeManifest(manifest);
  return [...flaggedManifests(good), ...brokenManifests(good, bytes, plaintext)];
}

const flagText = 'changed 41 % of its disks at ratio 1.0; usual is 0.5 % at ratio 2.4';

function flaggedManifests(plain: VectorCase): readonly VectorCase[] {
  using key = dataKey();
  const value = {
    ...manifest,
    remarks: [...(flagged(manifest, flagText).remarks ?? []), { kind: 300, value: filled(3, 0x99) }],
  };
  const bytes = sealManifest(key, saltKey, { context, seq: 77, tenure: 12 }, value, stuck);
  const good: VectorCase = {
    ...plain,
    name: 'manifest-flagged',
    about: 'The same manifest with a flag, and with a remark of a kind that means nothing yet.',
    given: { ...keyed, seq: 77, tenure: 12, ...bytesGiven(bytes) },
  };
  const second = joined([2], encodeManifest(manifest).subarray(1));
  return withBroken(good, {
    'no-remarks': [
      'An authentic manifest of version 2 without remarks.',
      bytesGiven(resealed(bytes, joined(second, [0]))),
    ],
    'remarks-disordered': [
      'An authentic manifest with two remarks of one kind.',
      bytesGiven(resealed(bytes, joined(second, [2, 2, 1, 0x41, 2, 1, 0x42]))),
    ],
    'empty-remark': [
      'An authentic manifest with a remark of no bytes.',
      bytesGiven(resealed(bytes, joined(second, [1, 2, 0]))),
    ],
    'flag-not-utf8': [
      'An authentic manifest whose flag is no text.',
      bytesGiven(resealed(bytes, joined(second, [1, 1, 1, 0xff]))),
    ],
  });
}

function brokenManifests(good: VectorCase, bytes: Uint8Array, plaintext: Uint8Array): readonly VectorCase[] {
  return withBroken(good, {
    seq: ['The manifest in another entry.', { seq: 78 }],
    tenure: ['The manifest under another tenure.', { tenure: 13 }],
    salt: ['One bit of the salt flipped.', flipped(bytes, 0)],
    body: ['One bit of the ciphertext flipped.', flipped(bytes, 70)],
    cut: ['The last byte is missing.', cut(bytes)],
    short: ['Shorter than salt and commitment.', { bytes: toHex(bytes.subarray(0, 63)) }],
    consistency: [
      'An authentic manifest with a consistency of 4.',
      bytesGiven(resealed(bytes, changedAt(plaintext, 1 + 16 + 6 + 6, 4))),
    ],
    'trailing-byte': [
      'An authentic manifest with a byte too many.',
      bytesGiven(resealed(bytes, joined(plaintext, [0]))),
    ],
  });
}

function changedAt(bytes: Uint8Array, at: number, value: number): Uint8Array {
  const copy = Uint8Array.from(bytes);
  copy[at] = value;
  return copy;
}

/** Another plaintext under the same salt: authentic, so that only a strict parser notices. */
function resealed(sealed: Uint8Array, plaintext: Uint8Array): Uint8Array {
  using key = dataKey();
  const place = Buffer.alloc(20);
  place.writeBigUInt64BE(77n, 0);
  place.writeBigUInt64BE(12n, 8);
  place.writeUInt32BE(context.epoch, 16);
  const manifestHeader = joined(repositoryId, machineId, place, sealed.subarray(0, 32));
  using keys = sealingKeys(key, context, 'failkit/v1/manifest', manifestHeader);
  const into = new Uint8Array(plaintext.length + 16);
  sealRecordInto(into, keys, 0, manifestHeader, plaintext);
  return joined(sealed.subarray(0, 32), keys.commitment, into);
}

const publishControl: Control = {
  births: [1, 2].map((number) => ({
    tenure: 12,
    number,
    size: 8_388_608 + number,
    units: 128,
    sha256: filled(32, number),
  })),
  deaths: [{ tenure: 9, number: 300, units: 5 }],
  summary: null,
};
const summary: NonNullable<Control['summary']> = {
  ...{ tenure: 12, ownerKeyId: filled(16, 0x41), hasPublished: true, watermark: 2 },
  epochs: [1, 3].map((epoch) => ({ epoch, keyRecordDigest: filled(32, epoch) })),
  ...{ adopted: [], lockGeneration: 2, lockUntilMs: createdMs },
  points: [20, 64].map((seq) => ({ seq, timeMs: createdMs + seq, digest: filled(32, seq === 64 ? 0 : seq) })),
  segments: [
    { tenure: 9, number: 300, size: 8_388_700, units: 100, dead: 100, birth: 20, death: 64, sha256: filled(32, 0x51) },
    { tenure: 12, number: 1, size: 8_388_609, units: 128, dead: 0, birth: 64, death: 0, sha256: filled(32, 1) },
  ],
};

export function controls(): readonly VectorCase[] {
  const bytes = encodeControl(publishControl, { publish: true, summary: false });
  const whole = encodeControl({ ...publishControl, summary }, { publish: true, summary: true });
  const about = 'Control data of a publish: two births, one death.';
  const good: VectorCase = {
    name: 'control-publish',
    about,
    section: '8.2',
    kind: 'control',
    given: { publish: true, summary: false, ...bytesGiven(bytes) },
  };
  const summed: VectorCase = {
    ...good,
    name: 'control-summary',
    about: 'Control data of publish 64, with a summary.',
    given: { publish: true, summary: true, ...bytesGiven(whole) },
  };
  const summaryOnly = (change: Partial<typeof summary>): Given => ({
    publish: false,
    ...bytesGiven(
      encodeControl({ births: [], deaths: [], summary: { ...summary, ...change } }, { publish: false, summary: true }),
    ),
  });
  const encoded = (change: Partial<Control>): Given =>
    bytesGiven(encodeControl({ ...publishControl, ...change }, { publish: true, summary: false }));
  return [
    ...withBroken(good, {
      'births-disordered': ['Births out of order.', encoded({ births: [...publishControl.births].toReversed() })],
      'birth-twice': [
        'A segment that is born twice.',
        encoded({ births: [...publishControl.births].slice(0, 1).flatMap((birth) => [birth, birth]) }),
      ],
      'death-of-nothing': ['A death of 0 units.', encoded({ deaths: [{ tenure: 9, number: 300, units: 0 }] })],
      'lying-count': ['127 births are promised.', changed(bytes, 0, 0x7f)],
      'unexpected-summary': ['A summary where none is due.', { publish: true, summary: false, bytes: toHex(whole) }],
    }),
    ...withBroken(summed, {
      'no-summary': ['A summary is due, but there is none.', { bytes: toHex(bytes) }],
      'no-epochs': ['No key epochs.', summaryOnly({ epochs: [] })],
      'points-disordered': ['Points out of order.', summaryOnly({ points: summary.points.toReversed() })],
      'early-death': [
        'A segment with a death that still has units.',
        summaryOnly({ segments: Array.from(summary.segments, (life) => ({ ...life, dead: 1, death: 64 })) }),
      ],
    }),
  ];
}
