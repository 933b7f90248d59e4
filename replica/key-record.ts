import { createCipheriv, createDecipheriv, createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import type { DataKey } from '../crypto/data-key.ts';
import { CommitmentMismatch, RecordTampered } from '../crypto/errors.ts';
import type { KeyContext, WrappedKey } from '../crypto/key-provider.ts';
import type { PublicKey, SigningKey } from '../crypto/signing.ts';
import { keyIdOf } from '../crypto/signing.ts';
import { commitmentBytes, derive, suite, tagBytes } from '../crypto/suite.ts';
import { ByteReader, ByteWriter } from './encoding.ts';
import { keyRecordName } from './names.ts';
import { checkSignature, readSignature, type Signature, writeSignature } from './signed.ts';

/** Key records: docs/format.md §5. */

const machineKeyBytes = 32;
const nonceBytes = 12;
const sealedMachineKeysBytes = nonceBytes + 2 * machineKeyBytes + tagBytes;
const macBytes = 32;
const nothing = new Uint8Array();

/** Keys that stay the same for a machine's life. Zeroed when disposed. */
export class MachineKeys implements Disposable {
  /** For block digests. */
  readonly digestKey: Uint8Array;
  /** For hedged salts. */
  readonly saltKey: Uint8Array;

  constructor(digestKey: Uint8Array, saltKey: Uint8Array) {
    this.digestKey = digestKey;
    this.saltKey = saltKey;
  }

  static generate(): MachineKeys {
    return new MachineKeys(randomBytes(machineKeyBytes), randomBytes(machineKeyBytes));
  }

  [Symbol.dispose](): void {
    this.digestKey.fill(0);
    this.saltKey.fill(0);
  }

  toJSON(): string {
    return '[redacted]';
  }
}

/** A parsed key record. Nothing in it is proven before `openKeyRecord`, except by `checkKeyRecordSigner`. */
export interface KeyRecord {
  readonly context: KeyContext;
  readonly revision: number;
  readonly createdMs: number;
  readonly commitment: Uint8Array;
  readonly sealedMachineKeys: Uint8Array;
  readonly wraps: readonly WrappedKey[];
  readonly mac: Uint8Array;
  readonly signerKeyId: Uint8Array;
  readonly signature: Signature;
  readonly bytes: Uint8Array;
}

export interface NewKeyRecord {
  readonly context: KeyContext;
  readonly revision: number;
  readonly createdMs: number;
  readonly wraps: readonly WrappedKey[];
}

/** Deterministic but for `nonce` (12 bytes). */
export function encodeKeyRecord(
  record: NewKeyRecord,
  key: DataKey,
  machineKeys: MachineKeys,
  agent: SigningKey,
  nonce: Uint8Array = randomBytes(nonceBytes),
): Uint8Array {
  const { context, revision } = record;
  if (record.wraps.length === 0) throw new RangeError('a key record without wraps could never be opened');
  const writer = new ByteWriter().ascii('FKKR').u16(1).u16(suite).raw(context.repositoryId).raw(context.machineId);
  writer.u32(context.epoch).u32(revision).u64(record.createdMs);
  writer.raw(derive(key, context, 'failkit/v1/data-key-commitment', nothing, commitmentBytes));
  writer.raw(sealMachineKeys(key, context, revision, machineKeys, nonce)).varint(record.wraps.length);
  for (const wrap of record.wraps) writer.text(wrap.provider).text(wrap.keyId).bytes(wrap.blob);
  writer.raw(macOf(key, context, writer.finish())).raw(keyIdOf(agent.publicKey));
  return writeSignature(writer, 'failkit/v1/key-record', agent).finish();
}

export function parseKeyRecord(context: KeyContext, revision: number, bytes: Uint8Array): KeyRecord {
  const reader = new ByteReader(keyRecordName(context.machineId, context.epoch, revision), bytes);
  reader.expectAscii('FKKR');
  reader.expectU16(1, 'version');
  reader.expectU16(suite, 'suite');
  reader.expectRaw(context.repositoryId, 'repository');
  reader.expectRaw(context.machineId, 'machine');
  if (reader.u32() !== context.epoch) throw reader.invalid('another epoch than its name says', reader.offset - 4);
  if (reader.u32() !== revision) throw reader.invalid('another revision than its name says', reader.offset - 4);
  const createdMs = reader.u64();
  const commitment = reader.raw(commitmentBytes);
  const sealedMachineKeys = reader.raw(sealedMachineKeysBytes);
  const count = reader.count(3);
  if (count === 0) throw reader.invalid('a key record without wraps');
  const wraps = Array.from({ length: count }, () => ({
    provider: reader.text(),
    keyId: reader.text(),
    blob: reader.bytes(),
  }));
  const mac = reader.raw(macBytes);
  const signerKeyId = reader.raw(16);
  const signature = readSignature(reader);
  reader.end();
  return { context, revision, createdMs, commitment, sealedMachineKeys, wraps, mac, signerKeyId, signature, bytes };
}

/** Throws SignatureInvalid. `agent` is the certified key that `signerKeyId` names. */
export function checkKeyRecordSigner(record: KeyRecord, agent: PublicKey): void {
  const signed = record.bytes.subarray(0, record.bytes.length - 1 - record.signature.bytes.length);
  checkSignature(agent, 'failkit/v1/key-record', signed, record.signature, nameOf(record));
}

/** Checks that `key` is the record's data key and that nobody added or changed a wrap, then opens the machine keys. */
export function openKeyRecord(record: KeyRecord, key: DataKey): MachineKeys {
  const { context } = record;
  const commitment = derive(key, context, 'failkit/v1/data-key-commitment', nothing, commitmentBytes);
  if (!timingSafeEqual(commitment, record.commitment)) {
    throw new CommitmentMismatch(
      `${nameOf(record)}: the unwrapped key is not the data key of this record: a wrap was swapped`,
    );
  }
  const macAt = record.bytes.length - 1 - record.signature.bytes.length - 16 - macBytes;
  if (!timingSafeEqual(macOf(key, context, record.bytes.subarray(0, macAt)), record.mac)) {
    throw new RecordTampered(`${nameOf(record)}: its mac does not verify: the record was altered`);
  }
  return openMachineKeys(record, key);
}

function sealMachineKeys(
  key: DataKey,
  context: KeyContext,
  revision: number,
  machineKeys: MachineKeys,
  nonce: Uint8Array,
): Uint8Array {
  const cipherKey = machineKeysKey(key, context, revision);
  const encrypt = createCipheriv('aes-256-gcm', cipherKey, nonce, { authTagLength: tagBytes });
  encrypt.setAAD(machineKeysBinding(context, revision));
  const parts = [encrypt.update(machineKeys.digestKey), encrypt.update(machineKeys.saltKey), encrypt.final()];
  cipherKey.fill(0);
  return Buffer.concat([nonce, ...parts, encrypt.getAuthTag()]);
}

function openMachineKeys(record: KeyRecord, key: DataKey): MachineKeys {
  const { sealedMachineKeys: sealed, context } = record;
  const cipherKey = machineKeysKey(key, context, record.revision);
  const decrypt = createDecipheriv('aes-256-gcm', cipherKey, sealed.subarray(0, nonceBytes), {
    authTagLength: tagBytes,
  });
  decrypt.setAAD(machineKeysBinding(context, record.revision));
  decrypt.setAuthTag(sealed.subarray(sealed.length - tagBytes));
  const keys = decrypt.update(sealed.subarray(nonceBytes, sealed.length - tagBytes));
  try {
    decrypt.final();
  } catch (cause) {
    throw new RecordTampered(`${nameOf(record)}: the machine keys' tag does not verify`, { cause });
  } finally {
    cipherKey.fill(0);
  }
  const opened = new MachineKeys(
    Uint8Array.from(keys.subarray(0, machineKeyBytes)),
    Uint8Array.from(keys.subarray(machineKeyBytes)),
  );
  keys.fill(0);
  return opened;
}

/** A key of its own for each revision, so that its random nonce matters to nobody. */
function machineKeysKey(key: DataKey, context: KeyContext, revision: number): Uint8Array {
  return derive(key, context, 'failkit/v1/machine-keys', new ByteWriter().u32(revision).finish(), 32);
}

function machineKeysBinding(context: KeyContext, revision: number): Uint8Array {
  return new ByteWriter().raw(context.repositoryId).raw(context.machineId).u32(context.epoch).u32(revision).finish();
}

function macOf(key: DataKey, context: KeyContext, message: Uint8Array): Uint8Array {
  const macKey = derive(key, context, 'failkit/v1/key-record-mac', nothing, 32);
  const mac = createHmac('sha256', macKey).update(message).digest();
  macKey.fill(0);
  return mac;
}

function nameOf(record: KeyRecord): string {
  return keyRecordName(record.context.machineId, record.context.epoch, record.revision);
}
