import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DataKey } from '../../crypto/data-key.ts';
import type { KeyContext } from '../../crypto/key-provider.ts';
import { openLocalKey } from '../../crypto/local-key.ts';
import { recoveryKeyFromPem } from '../../crypto/recovery-key.ts';
import { rootFingerprint } from '../../crypto/root-fingerprint.ts';
import { keyIdOf, verifySignature } from '../../crypto/signing.ts';
import { blockDigest, type DerivationLabel, derive } from '../../crypto/suite.ts';
import { checkEntrySignature, parseEntry } from '../../replica/chain-entry.ts';
import { parseControl } from '../../replica/control.ts';
import { toHex } from '../../replica/encoding.ts';
import { checkKeyRecordSigner, openKeyRecord, parseKeyRecord } from '../../replica/key-record.ts';
import { openManifest } from '../../replica/manifest.ts';
import { parsePage } from '../../replica/page.ts';
import { parseRepository } from '../../replica/repository.ts';
import { SegmentOpener } from '../../replica/segment.ts';
import { checkTrustHistory, parseTrust } from '../../replica/trust.ts';

/** What each kind of vector asks a reader to do: fixtures/vectors/README.md. */

export type Given = Readonly<Record<string, string | number | boolean | readonly string[]>>;

export type VectorKind =
  | 'derive'
  | 'block-digest'
  | 'public-key'
  | 'signature'
  | 'local-key-wrap'
  | 'recovery-key-wrap'
  | 'repository'
  | 'trust'
  | 'trust-history'
  | 'key-record'
  | 'segment'
  | 'page'
  | 'manifest'
  | 'entry'
  | 'control';

type VectorReader = (given: Given) => unknown;

export const vectorReaders: Readonly<Record<VectorKind, VectorReader>> = {
  derive(given) {
    using key = dataKeyOf(given);
    const label = text(given, 'label') as DerivationLabel;
    return { derived: derive(key, contextOf(given), label, hex(given, 'context'), number(given, 'length')) };
  },
  'block-digest': (given) => ({ digest: blockDigest(hex(given, 'digestKey'), hex(given, 'block')) }),
  'public-key'(given) {
    const key = publicKeyOf(given, 'publicKey');
    return { keyId: keyIdOf(key), fingerprint: rootFingerprint(key) };
  },
  signature(given) {
    const key = publicKeyOf(given, 'publicKey');
    verifySignature(key, text(given, 'domain'), hex(given, 'message'), hex(given, 'signature'));
    return { valid: true };
  },
  'local-key-wrap': unwrapLocally,
  async 'recovery-key-wrap'(given) {
    const base64 = Buffer.from(hex(given, 'recoveryPrivateKey')).toString('base64');
    const provider = recoveryKeyFromPem(
      Buffer.from(`-----BEGIN PRIVATE KEY-----\n${base64}\n-----END PRIVATE KEY-----\n`),
    );
    const wrapped = { provider: 'recovery-key', keyId: provider.keyId, blob: hex(given, 'wrapped') };
    using key = await provider.unwrap(wrapped, contextOf(given), AbortSignal.timeout(10_000));
    return { dataKey: Uint8Array.from(key.bytes) };
  },
  repository: (given) => parseRepository(hex(given, 'bytes')),
  trust: (given) => parseTrust(number(given, 'n'), hex(given, 'repositoryId'), hex(given, 'bytes')),
  'trust-history'(given) {
    const repository = parseRepository(hex(given, 'repository'));
    const statements = list(given, 'statements').map((bytes, n) =>
      parseTrust(n, repository.repositoryId, Buffer.from(bytes, 'hex')),
    );
    checkTrustHistory(repository, statements);
    return { rootInForce: statements.at(-1)?.root };
  },
  'key-record'(given) {
    const record = parseKeyRecord(contextOf(given), number(given, 'revision'), hex(given, 'bytes'));
    checkKeyRecordSigner(record, publicKeyOf(given, 'agent'));
    using key = dataKeyOf(given);
    const { digestKey, saltKey } = openKeyRecord(record, key);
    const { wraps, createdMs, commitment } = record;
    return { createdMs, commitment, wraps, digestKey, saltKey };
  },
  segment: openSegment,
  page: (given) => parsePage(hex(given, 'bytes'), number(given, 'level'), number(given, 'firstBlock'), 'the page'),
  manifest(given) {
    using key = dataKeyOf(given);
    const place = { context: contextOf(given), seq: number(given, 'seq'), tenure: number(given, 'tenure') };
    return openManifest(key, place, hex(given, 'bytes'));
  },
  entry(given) {
    const entry = parseEntry(
      hex(given, 'repositoryId'),
      hex(given, 'machineId'),
      number(given, 'seq'),
      hex(given, 'bytes'),
    );
    checkEntrySignature(entry, publicKeyOf(given, 'agent'));
    const { bytes: _, signature: _signature, ...fields } = entry;
    return fields;
  },
  control(given) {
    const shape = { publish: given.publish === true, summary: given.summary === true };
    return parseControl(hex(given, 'bytes'), shape, 'the control data');
  },
};

function openSegment(given: Given): unknown {
  using key = dataKeyOf(given);
  const bytes = hex(given, 'bytes');
  const expected = { tenure: number(given, 'tenure'), number: number(given, 'number'), context: contextOf(given) };
  using opener = SegmentOpener.open(key, expected, bytes, 'the segment');
  const records = opener.openFooter(bytes).map((record) => {
    const sealed = bytes.subarray(record.offset, record.offset + record.length);
    return { ...record, body: opener.openBody(record.record, record, sealed) };
  });
  return { records };
}

async function unwrapLocally(given: Given): Promise<unknown> {
  const folder = await mkdtemp(join(tmpdir(), 'vector-'));
  try {
    const file = join(folder, 'local.key');
    await writeFile(file, text(given, 'keyFile'), { mode: 0o600 });
    const provider = await openLocalKey(file);
    const wrapped = { provider: 'local-key', keyId: provider.keyId, blob: hex(given, 'wrapped') };
    using key = await provider.unwrap(wrapped, contextOf(given), AbortSignal.timeout(10_000));
    return { dataKey: Uint8Array.from(key.bytes) };
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** JSON of a value: bytes as hex. */
function isList(value: object): value is Iterable<unknown> {
  return Symbol.iterator in value;
}

export function plain(value: unknown): unknown {
  if (value instanceof Uint8Array) return toHex(value);
  if (value === null || typeof value !== 'object') return value;
  if (isList(value)) return Array.from(value, plain);
  return Object.fromEntries(Object.entries(value).map(([name, field]) => [name, plain(field)]));
}

function contextOf(given: Given): KeyContext {
  return {
    repositoryId: hex(given, 'repositoryId'),
    machineId: hex(given, 'machineId'),
    epoch: number(given, 'epoch'),
  };
}

function dataKeyOf(given: Given): DataKey {
  return new DataKey(hex(given, 'dataKey'));
}

function publicKeyOf(given: Given, name: string) {
  return { algorithm: 1, bytes: hex(given, name) };
}

function hex(given: Given, name: string): Uint8Array {
  return Uint8Array.from(Buffer.from(text(given, name), 'hex'));
}

function text(given: Given, name: string): string {
  const value = given[name];
  if (typeof value !== 'string') throw new Error(`the vector gives no text ${name}`);
  return value;
}

function number(given: Given, name: string): number {
  const value = given[name];
  if (typeof value !== 'number') throw new Error(`the vector gives no number ${name}`);
  return value;
}

function list(given: Given, name: string): readonly string[] {
  const value = given[name];
  if (!Array.isArray(value)) throw new Error(`the vector gives no list ${name}`);
  return value;
}
