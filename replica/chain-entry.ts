import { keyIdOf, type PublicKey, type SigningKey } from '../crypto/signing.ts';
import { sha256 } from '../crypto/suite.ts';
import { ByteReader, ByteWriter } from './encoding.ts';
import { chainEntryName } from './names.ts';
import { checkSignature, readSignature, type Signature, writeSignature } from './signed.ts';

/** Chain entries: docs/format.md §8. */

export const summaryInterval = 64;
export const inlineControlBytesMax = 65_536;
/** What a control object has before its content. */
const controlHeaderBytes = 46;
/** What `dec8(epoch)` in names and `u32 epoch` in keys' contexts can hold. */
export const epochMax = 99_999_999;
const entryType = { begin: 1, publish: 2, prune: 3, lock: 4, rekey: 5 } as const;

export type EntryBody =
  | {
      readonly type: 'begin';
      readonly adopts: number | null;
      readonly epoch: number;
      readonly keyRecordDigest: Uint8Array;
    }
  | {
      readonly type: 'publish';
      readonly epoch: number;
      readonly watermark: number;
      /** 0: no object lock. */
      readonly immutableUntilMs: number;
      readonly sealedManifest: Uint8Array;
    }
  | { readonly type: 'prune'; readonly points: readonly number[] }
  | { readonly type: 'lock'; readonly generation: number; readonly untilMs: number }
  | { readonly type: 'rekey'; readonly epoch: number; readonly keyRecordDigest: Uint8Array };

/** Control data in the entry itself, or as an object of its own. */
export type PlacedControl = { readonly inline: Uint8Array } | { readonly length: number; readonly sha256: Uint8Array };

export interface EntryFields {
  readonly repositoryId: Uint8Array;
  readonly machineId: Uint8Array;
  readonly seq: number;
  /** SHA-256 of entry seq-1; zeros for the first. */
  readonly previous: Uint8Array;
  /** 16 random bytes: tells our own entry from another's after a lost answer. */
  readonly nonce: Uint8Array;
  readonly timeMs: number;
  readonly tenure: number;
  /** Number of the newest trust statement that the writer knew. */
  readonly trust: number;
  readonly body: EntryBody;
  readonly control: PlacedControl;
}

export interface ChainEntry extends EntryFields {
  readonly signerKeyId: Uint8Array;
  readonly signature: Signature;
  readonly bytes: Uint8Array;
  /** SHA-256 of the whole object. */
  readonly digest: Uint8Array;
}

export function encodeEntry(entry: EntryFields, agent: SigningKey): Uint8Array {
  const writer = new ByteWriter().ascii('FKCE').u16(1).u8(entryType[entry.body.type]);
  writer.raw(entry.repositoryId).raw(entry.machineId).u64(entry.seq).raw(entry.previous).raw(entry.nonce);
  writer.u64(entry.timeMs).u64(entry.tenure).u64(entry.trust).bytes(encodeBody(entry.body));
  if ('inline' in entry.control) writer.u8(0).bytes(entry.control.inline);
  else writer.u8(1).varint(entry.control.length).raw(entry.control.sha256);
  writer.raw(keyIdOf(agent.publicKey));
  return writeSignature(writer, 'failkit/v1/chain-entry', agent).finish();
}

/** Parses without trusting: the caller checks signer, `previous`, and the place in the chain. */
export function parseEntry(
  repositoryId: Uint8Array,
  machineId: Uint8Array,
  seq: number,
  bytes: Uint8Array,
): ChainEntry {
  const reader = new ByteReader(chainEntryName(machineId, seq), bytes);
  reader.expectAscii('FKCE');
  reader.expectU16(1, 'version');
  const type = reader.u8();
  reader.expectRaw(repositoryId, 'repository');
  reader.expectRaw(machineId, 'machine');
  if (reader.u64() !== seq) throw reader.invalid('another sequence number than its name says', reader.offset - 8);
  const previous = reader.raw(32).slice();
  if (seq === 1 && previous.some((byte) => byte !== 0)) throw reader.invalid('a predecessor of the first entry');
  const nonce = reader.raw(16).slice();
  const timeMs = reader.u64();
  const tenure = reader.u64();
  const trust = reader.u64();
  const body = parseBody(type, reader, tenure, seq);
  const control = parseControl(reader);
  const signerKeyId = reader.raw(16).slice();
  const signature = readSignature(reader);
  reader.end();
  const fields = { repositoryId, machineId, seq, previous, nonce, timeMs, tenure, trust, body, control };
  return { ...fields, signerKeyId, signature, bytes, digest: sha256(bytes) };
}

export function checkEntrySignature(entry: ChainEntry, agent: PublicKey): void {
  const signed = entry.bytes.subarray(0, entry.bytes.length - 1 - entry.signature.bytes.length);
  const name = chainEntryName(entry.machineId, entry.seq);
  checkSignature(agent, 'failkit/v1/chain-entry', signed, entry.signature, name);
}

function encodeBody(body: EntryBody): Uint8Array {
  const writer = new ByteWriter();
  switch (body.type) {
    case 'begin':
      if (body.adopts === null) writer.u8(0);
      else writer.u8(1).varint(body.adopts);
      return writer.varint(body.epoch).raw(body.keyRecordDigest).finish();
    case 'publish':
      writer.varint(body.epoch).varint(body.watermark).varint(body.immutableUntilMs);
      return writer.bytes(body.sealedManifest).finish();
    case 'prune':
      writer.varint(body.points.length);
      for (const seq of body.points) writer.varint(seq);
      return writer.finish();
    case 'lock':
      return writer.varint(body.generation).varint(body.untilMs).finish();
    case 'rekey':
      return writer.varint(body.epoch).raw(body.keyRecordDigest).finish();
  }
}

function parseBody(type: number, outer: ByteReader, tenure: number, seq: number): EntryBody {
  const start = outer.offset;
  const reader = new ByteReader(`${outer.object} body`, outer.bytes());
  const body = parseBodyOf(type, reader, outer);
  reader.end();
  if ((body.type === 'begin') !== (tenure === seq))
    throw outer.invalid('a tenure that only its begin entry may have', start);
  if (tenure > seq) throw outer.invalid('a tenure that begins later', start);
  return body;
}

function parseBodyOf(type: number, reader: ByteReader, outer: ByteReader): EntryBody {
  switch (type) {
    case entryType.begin:
      return {
        type: 'begin',
        adopts: reader.flag() ? reader.varint() : null,
        epoch: parseEpoch(reader),
        keyRecordDigest: reader.raw(32).slice(),
      };
    case entryType.publish:
      return {
        type: 'publish',
        epoch: parseEpoch(reader),
        watermark: reader.varint(),
        immutableUntilMs: reader.varint(),
        sealedManifest: reader.bytes().slice(),
      };
    case entryType.prune:
      return { type: 'prune', points: parsePoints(reader) };
    case entryType.lock:
      return { type: 'lock', generation: reader.varint(), untilMs: reader.varint() };
    case entryType.rekey:
      return { type: 'rekey', epoch: parseEpoch(reader), keyRecordDigest: reader.raw(32).slice() };
    default:
      throw outer.invalid(`unknown entry type ${type}`, 6);
  }
}

function parseEpoch(reader: ByteReader): number {
  const start = reader.offset;
  const epoch = reader.varint();
  if (epoch < 1 || epoch > epochMax) throw reader.invalid(`key epoch ${epoch}`, start);
  return epoch;
}

function parsePoints(reader: ByteReader): readonly number[] {
  const points = Array.from({ length: reader.count(1) }, () => reader.varint());
  if (points.length === 0) throw reader.invalid('a prune entry without points');
  if (points.some((seq, i) => i > 0 && seq <= (points[i - 1] ?? 0))) throw reader.invalid('points out of order');
  return points;
}

function parseControl(reader: ByteReader): PlacedControl {
  if (!reader.flag()) {
    const start = reader.offset;
    const inline = reader.bytes().slice();
    if (inline.length > inlineControlBytesMax) throw reader.invalid('inline control data above 64 KiB', start);
    return { inline };
  }
  const start = reader.offset;
  const placed = { length: reader.varint(), sha256: reader.raw(32).slice() };
  if (placed.length <= inlineControlBytesMax + controlHeaderBytes)
    throw reader.invalid('a control object that belongs inline', start);
  return placed;
}
