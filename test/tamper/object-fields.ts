import type { DataKey } from '../../crypto/data-key.ts';
import { type FooterRecord, parseSegmentHeader, recordType, SegmentOpener } from '../../replica/segment.ts';

/** What each byte of an object is, after docs/format.md: so that a sweep can say which kinds of bytes it changed. */

export const everyKind = ['repository', 'trust', 'key record', 'chain entry', 'control object', 'segment'] as const;
export type ObjectKind = (typeof everyKind)[number];

/** A run of bytes of one meaning. */
export interface Field {
  readonly name: string;
  readonly offset: number;
  readonly length: number;
}

const signatureBytes = 65;
const ids: Layout = [
  ['repository id', 16],
  ['machine id', 16],
];

type Layout = readonly (readonly [name: string, length: number])[];

/** Fields of fixed length at the front, what varies, and fields of fixed length at the end. */
const layouts: Readonly<Record<Exclude<ObjectKind, 'segment'>, readonly [Layout, string, Layout]>> = {
  repository: [
    [
      ['magic', 4],
      ['version', 2],
      ['repository id', 16],
      ['created', 8],
    ],
    'first root',
    [['signature', signatureBytes]],
  ],
  trust: [
    [
      ['magic', 4],
      ['version', 2],
      ['repository id', 16],
      ['number', 8],
      ['previous', 32],
      ['created', 8],
    ],
    'root, lineage, recovery key, agents',
    [['signature', signatureBytes]],
  ],
  'key record': [
    [
      ['magic', 4],
      ['version', 2],
      ['suite', 2],
      ...ids,
      ['epoch', 4],
      ['revision', 4],
      ['created', 8],
      ['commitment', 32],
      ['machine keys', 92],
    ],
    'wraps',
    [
      ['mac', 32],
      ['signer', 16],
      ['signature', signatureBytes],
    ],
  ],
  'chain entry': [
    [
      ['magic', 4],
      ['version', 2],
      ['type', 1],
      ...ids,
      ['seq', 8],
      ['previous', 32],
      ['nonce', 16],
      ['time', 8],
      ['tenure', 8],
      ['trust', 8],
    ],
    'body and control',
    [
      ['signer', 16],
      ['signature', signatureBytes],
    ],
  ],
  'control object': [[['magic', 4], ['version', 2], ...ids, ['seq', 8]], 'content', []],
};

const segmentHeader: Layout = [
  ['magic', 4],
  ['version', 2],
  ['suite', 2],
  ...ids,
  ['tenure', 8],
  ['number', 4],
  ['epoch', 4],
  ['flags', 4],
  ['zero', 4],
  ['salt', 32],
  ['commitment', 32],
];

export function kindOf(name: string): ObjectKind {
  if (name === 'repository') return 'repository';
  if (name.startsWith('trust/')) return 'trust';
  const part = name.split('/')[2];
  if (part === 'keys') return 'key record';
  if (part === 'chain') return 'chain entry';
  if (part === 'control') return 'control object';
  if (part === 'segments') return 'segment';
  throw new Error(`${name}: not an object of a replica`);
}

/** All fields, in order, without gaps. `keyOf` gives the data key of an epoch: a segment's records are in its sealed footer. */
export function fieldsOf(name: string, bytes: Uint8Array, keyOf: (epoch: number) => DataKey): readonly Field[] {
  const kind = kindOf(name);
  if (kind === 'segment') return segmentFields(name, bytes, keyOf);
  const [front, middle, back] = layouts[kind];
  const known = [...front, ...back].reduce((sum, [, length]) => sum + length, 0);
  return placed([...front, [middle, bytes.length - known], ...back]);
}

function segmentFields(name: string, bytes: Uint8Array, keyOf: (epoch: number) => DataKey): readonly Field[] {
  const preamble = bytes.subarray(0, 128);
  const header = parseSegmentHeader(preamble, name);
  using opener = SegmentOpener.open(keyOf(header.context.epoch), header, preamble, name);
  const records = opener.openFooter(bytes).flatMap((record): Layout => sealed(titleOf(record), record.length));
  const footer = bytes.length - 128 - 12 - records.reduce((sum, [, length]) => sum + length, 0);
  const trailer: Layout = [
    ['footer length', 4],
    ['record count', 4],
    ['end magic', 4],
  ];
  return placed([...segmentHeader, ...records, ...sealed('footer', footer), ...trailer]);
}

function sealed(title: string, length: number): Layout {
  return [
    [title, length - 16],
    [`${title} tag`, 16],
  ];
}

function titleOf({ type, codec }: FooterRecord): string {
  if (type === recordType.page) return 'page';
  const title = type === recordType.data ? 'data' : 'attachment';
  return codec === 0 ? title : `${title} (zstd)`;
}

function placed(layout: Layout): readonly Field[] {
  let offset = 0;
  return layout.map(([name, length]) => {
    const field = { name, offset, length };
    offset += length;
    return field;
  });
}
