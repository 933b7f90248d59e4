import { DataKey } from '../../crypto/data-key.ts';
import type { KeyContext } from '../../crypto/key-provider.ts';
import { SigningKey } from '../../crypto/signing.ts';
import { sha256 } from '../../crypto/suite.ts';
import type { EntryBody, EntryFields } from '../../replica/chain-entry.ts';
import { MachineKeys, type NewKeyRecord } from '../../replica/key-record.ts';
import type { Manifest } from '../../replica/manifest.ts';
import { codec, recordType, type SegmentHeader, type UnsealedRecord } from '../../replica/segment.ts';

/** One of each, always the same: what the damage tests hurt and the vectors show. */

const pkcs8Prefix = Buffer.from('302e020100300506032b657004220420', 'hex');

/** An Ed25519 key from its 32-byte seed (RFC 8032, RFC 8410). */
export function signingKeyOf(seed: Uint8Array): SigningKey {
  const der = Buffer.concat([pkcs8Prefix, seed]).toString('base64');
  return SigningKey.fromPem(Buffer.from(`-----BEGIN PRIVATE KEY-----\n${der}\n-----END PRIVATE KEY-----\n`), 'a test');
}

const seeds = {
  root: filled(32, 0xa1),
  newRoot: filled(32, 0xa2),
  agent: filled(32, 0xb1),
  otherAgent: filled(32, 0xb2),
};
export const rootKey = signingKeyOf(seeds.root);
export const newRootKey = signingKeyOf(seeds.newRoot);
export const agentKey = signingKeyOf(seeds.agent);
export const otherAgentKey = signingKeyOf(seeds.otherAgent);

export const repositoryId = filled(16, 0x11);
export const machineId = filled(16, 0x22);
export const diskId = filled(16, 0x33);
export const otherDiskId = filled(16, 0x34);
export const context: KeyContext = { repositoryId, machineId, epoch: 3 };
export const header: SegmentHeader = { tenure: 12, number: 5, context };
export const createdMs = 1_700_000_000_000;

export function filled(length: number, byte: number): Uint8Array {
  return new Uint8Array(length).fill(byte);
}

/** A fresh one each time, for whoever uses it disposes it. */
export function dataKey(): DataKey {
  return new DataKey(filled(32, 0x07));
}

export function machineKeys(): MachineKeys {
  return new MachineKeys(filled(32, 0x09), filled(32, 0x0a));
}

export function dataRecord(firstBlock: number, blocks: number, body: Uint8Array): UnsealedRecord {
  return {
    type: recordType.data,
    codec: codec.stored,
    diskId,
    firstBlock,
    blockCount: blocks,
    blockSize: body.length / blocks,
    plaintextLength: body.length,
    body,
    digests: Buffer.concat(Array.from({ length: blocks }, (_, i) => sha256(Uint8Array.of(i)).subarray(0, 16))),
    childDigests: [],
  };
}

export function attachmentRecord(chunk: number, chunks: number, body: Uint8Array): UnsealedRecord {
  const binding = { firstBlock: chunk, blockCount: chunks, blockSize: 262_144, plaintextLength: body.length };
  const type = recordType.attachment;
  return {
    type,
    codec: codec.stored,
    diskId: filled(16, 0),
    ...binding,
    body,
    digests: new Uint8Array(),
    childDigests: [],
  };
}

export function pageRecord(
  level: number,
  firstBlock: number,
  body: Uint8Array,
  childDigests: UnsealedRecord['childDigests'] = [],
): UnsealedRecord {
  const binding = { firstBlock, blockCount: 64 ** (level + 1), blockSize: 65_536, plaintextLength: body.length };
  return {
    type: recordType.page,
    codec: codec.stored,
    diskId,
    ...binding,
    body,
    digests: new Uint8Array(),
    childDigests,
  };
}

export const keyRecordFields: NewKeyRecord = {
  context,
  revision: 2,
  createdMs,
  wraps: [
    { provider: 'local-key', keyId: 'local:0011223344556677', blob: filled(61, 0x55) },
    { provider: 'aws-kms', keyId: 'arn:aws:kms:eu-central-1:111122223333:key/é', blob: filled(20, 0x56) },
  ],
};

export const manifest: Manifest = {
  machineName: 'mail server ✉',
  sourceKind: 'image',
  snapshotTimeMs: createdMs,
  consistency: 'crash-consistent',
  readBytes: 1_000_000,
  changedBytes: 300_000,
  uploadedBytes: 123_456,
  disks: [
    {
      diskId,
      label: 'disk-0',
      generation: 1,
      blockSize: 65_536,
      capacityBytes: 10_000_000,
      fullReadReason: 'first seed',
      generationReason: 'first seed',
      referencePoint: Uint8Array.of(1, 2, 3),
      root: { tenure: 12, number: 5, record: 3, offset: 4096, length: 300, digest: filled(16, 0x77) },
    },
    {
      diskId: otherDiskId,
      label: 'disk-1',
      generation: 2,
      blockSize: 1_048_576,
      capacityBytes: 2 ** 40,
      fullReadReason: '',
      generationReason: 'grew past 4 TiB',
      referencePoint: null,
      root: null,
    },
  ],
  excluded: [{ label: 'disk-2', reason: 'an independent disk' }],
  attachments: [
    {
      name: 'machine.xml',
      length: 300_000,
      sha256: filled(32, 0x88),
      chunks: [
        { codec: 0, at: { tenure: 12, number: 5, record: 4, offset: 4396, length: 262_160 } },
        { codec: 1, at: { tenure: 12, number: 5, record: 5, offset: 266_556, length: 9000 } },
      ],
    },
  ],
};

export const bodies: { readonly [T in EntryBody['type']]: EntryBody } = {
  begin: { type: 'begin', adopts: 9, epoch: 3, keyRecordDigest: filled(32, 0x44) },
  publish: { type: 'publish', epoch: 3, watermark: 7, immutableUntilMs: createdMs, sealedManifest: filled(90, 0x99) },
  prune: { type: 'prune', points: [4, 7, 300] },
  lock: { type: 'lock', generation: 2, untilMs: createdMs },
  rekey: { type: 'rekey', epoch: 4, keyRecordDigest: filled(32, 0x45) },
};

export function entryFields(type: EntryBody['type'], change: Partial<EntryFields> = {}): EntryFields {
  const seq = 1000;
  return {
    repositoryId,
    machineId,
    seq,
    previous: filled(32, 0x66),
    nonce: filled(16, 0x67),
    timeMs: createdMs,
    tenure: type === 'begin' ? seq : 12,
    trust: 1,
    body: bodies[type],
    control: { inline: type === 'publish' ? Uint8Array.of(0, 0) : new Uint8Array() },
    ...change,
  };
}
