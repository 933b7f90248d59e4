import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createHmac,
  createSecretKey,
  hash,
  hkdfSync,
  type KeyObject,
  randomBytes,
  timingSafeEqual,
} from 'node:crypto';
import { copyBytes } from './copy-bytes.ts';
import type { DataKey } from './data-key.ts';
import { CommitmentMismatch, RecordTampered } from './errors.ts';
import { freeBytes } from './free-bytes.ts';
import type { KeyContext } from './key-provider.ts';

/** Suite 1 of docs/format.md §2: HKDF-SHA-256, AES-256-GCM, a key commitment checked before any decryption. */
export const suite = 1;
export const tagBytes = 16;
export const saltBytes = 32;
export const commitmentBytes = 32;
export const digestBytes = 16;
const keyBytes = 32;
const nonceBytes = 12;
const cipher = 'aes-256-gcm';

export type DerivationLabel =
  | 'failkit/v1/data-key-commitment'
  | 'failkit/v1/key-record-mac'
  | 'failkit/v1/machine-keys'
  | 'failkit/v1/segment'
  | 'failkit/v1/manifest';

/** HKDF-SHA-256 over the data key, bound to repository, machine and epoch. */
export function derive(
  key: DataKey,
  context: KeyContext,
  label: DerivationLabel,
  info: Uint8Array,
  length: number,
): Uint8Array {
  const epoch = new Uint8Array(4);
  new DataView(epoch.buffer).setUint32(0, context.epoch);
  const salt = createHash('sha256')
    .update('failkit/v1/data-key\0')
    .update(context.repositoryId)
    .update(context.machineId)
    .update(epoch)
    .digest();
  return new Uint8Array(hkdfSync('sha256', key.bytes, salt, Buffer.concat([Buffer.from(`${label}\0`), info]), length));
}

/** Keys of one segment or manifest. Zeroed when disposed. */
export class SealingKeys implements Disposable {
  readonly key: Uint8Array;
  /** The same key, prepared: a cipher for one record takes a third of the time then. OpenSSL wipes its copy when it is collected. */
  readonly cipherKey: KeyObject;
  readonly baseNonce: Uint8Array;
  readonly commitment: Uint8Array;

  constructor(material: Uint8Array) {
    this.key = material.subarray(0, keyBytes);
    this.cipherKey = createSecretKey(this.key);
    this.baseNonce = material.subarray(keyBytes, keyBytes + nonceBytes);
    this.commitment = material.slice(keyBytes + nonceBytes);
  }

  [Symbol.dispose](): void {
    this.key.fill(0);
    this.baseNonce.fill(0);
  }
}

/** Keys bound to the whole plaintext header: any other header, machine, epoch or data key gives another commitment. */
export function sealingKeys(
  key: DataKey,
  context: KeyContext,
  label: 'failkit/v1/segment' | 'failkit/v1/manifest',
  header: Uint8Array,
): SealingKeys {
  const info = createHash('sha256').update(header).digest();
  return new SealingKeys(derive(key, context, label, info, keyBytes + nonceBytes + commitmentBytes));
}

/** `where` names the object for the error. */
export function checkCommitment(keys: SealingKeys, found: Uint8Array, where: string): void {
  if (found.length !== commitmentBytes || !timingSafeEqual(keys.commitment, found)) {
    throw new CommitmentMismatch(
      `${where}: its key commitment does not match: the object was altered or swapped, or this is not its data key`,
    );
  }
}

/** base nonce XOR record number, in the last four bytes. */
export function recordNonce(baseNonce: Uint8Array, recordNumber: number): Uint8Array {
  const nonce = Uint8Array.from(baseNonce);
  const view = new DataView(nonce.buffer);
  view.setUint32(nonceBytes - 4, (view.getUint32(nonceBytes - 4) ^ recordNumber) >>> 0);
  return nonce;
}

/** Writes ciphertext ‖ tag at the start of `into` and returns its length, `body.length + tagBytes`. */
export function sealRecordInto(
  into: Uint8Array,
  keys: SealingKeys,
  recordNumber: number,
  aad: Uint8Array,
  body: Uint8Array,
): number {
  const encrypt = createCipheriv(cipher, keys.cipherKey, recordNonce(keys.baseNonce, recordNumber), {
    authTagLength: tagBytes,
  });
  encrypt.setAAD(aad);
  const ciphertext = encrypt.update(body);
  encrypt.final();
  copyBytes(ciphertext, into, 0);
  into.set(encrypt.getAuthTag(), body.length);
  freeBytes(ciphertext);
  return body.length + tagBytes;
}

/** Returns the body only after its tag was verified; throws RecordTampered otherwise. `where` names segment and record. */
export function openRecord(
  keys: SealingKeys,
  recordNumber: number,
  aad: Uint8Array,
  sealed: Uint8Array,
  where: string,
): Uint8Array {
  if (sealed.length < tagBytes) throw new RecordTampered(`${where}: shorter than a tag`);
  const decrypt = createDecipheriv(cipher, keys.cipherKey, recordNonce(keys.baseNonce, recordNumber), {
    authTagLength: tagBytes,
  });
  decrypt.setAAD(aad);
  decrypt.setAuthTag(sealed.subarray(sealed.length - tagBytes));
  const body = decrypt.update(sealed.subarray(0, sealed.length - tagBytes));
  try {
    decrypt.final();
  } catch (cause) {
    body.fill(0);
    throw new RecordTampered(`${where}: its tag does not verify: altered, cut short, or moved from another place`, {
      cause,
    });
  }
  return body;
}

/**
 * A salt that repeats only if everything it was made from repeats: neither a stuck random generator nor a rolled-back
 * agent VM ever seals other bytes under the same key and nonce.
 */
export function hedgedSalt(
  saltKey: Uint8Array,
  label: 'failkit/v1/segment-salt' | 'failkit/v1/manifest-salt',
  header: Uint8Array,
  bodyHashes: readonly Uint8Array[],
  random: Uint8Array = randomBytes(saltBytes),
): Uint8Array {
  const mac = createHmac('sha256', saltKey).update(`${label}\0`).update(random).update(header);
  for (const hash of bodyHashes) mac.update(hash);
  return mac.digest();
}

/** Whoever digests many blocks prepares the key once: that is a third faster. */
export function prepareDigestKey(digestKey: Uint8Array): KeyObject {
  return createSecretKey(digestKey);
}

/** First 16 bytes of HMAC-SHA-256: what change suppression and restore compare. `block` has the full block size. */
export function blockDigest(digestKey: KeyObject | Uint8Array, block: Uint8Array): Uint8Array {
  return createHmac('sha256', digestKey).update(block).digest().subarray(0, digestBytes);
}

/** First 16 bytes of SHA-256 over a sealed page. */
export function pageDigest(sealed: Uint8Array): Uint8Array {
  return sha256(sealed).subarray(0, digestBytes);
}

export function sha256(bytes: Uint8Array): Uint8Array {
  return hash('sha256', bytes, 'buffer');
}
