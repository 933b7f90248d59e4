import { timingSafeEqual } from 'node:crypto';
import { type PublicKey, publicKeyHash } from './signing.ts';

/**
 * The root key's fingerprint, as a person reads it out: `fk-root-` and eight groups of four base32 characters (RFC 4648
 * alphabet, lower case): the first 160 bits of the hash whose first 128 bits are the key id.
 */
const prefix = 'fk-root-';
const fingerprintBytes = 20;
const alphabet = 'abcdefghijklmnopqrstuvwxyz234567';
const textForm = /^fk-root-([a-z2-7]{4}-){7}[a-z2-7]{4}$/;

/** A text that is no root key fingerprint. */
export class FingerprintMalformed extends Error {
  readonly code = 'FINGERPRINT_MALFORMED';
  override readonly name = 'FingerprintMalformed';
}

/** `fk-root-abcd-…`: 47 characters. */
export function rootFingerprint(rootKey: PublicKey): string {
  const text = encodeBase32(publicKeyHash(rootKey).subarray(0, fingerprintBytes));
  return prefix + (text.match(/.{4}/g) ?? []).join('-');
}

/** The canonical text of what someone typed: surrounding space and case don't matter, all else does. Throws FingerprintMalformed. */
export function parseRootFingerprint(typed: string): string {
  const text = typed.trim().toLowerCase();
  if (textForm.test(text)) return text;
  throw new FingerprintMalformed(
    `${JSON.stringify(typed)} is no root key fingerprint: copy it whole from the recovery kit (fk-root- and eight groups of four)`,
  );
}

/** `fingerprint` as `parseRootFingerprint` returned it. */
export function hasRootFingerprint(rootKey: PublicKey, fingerprint: string): boolean {
  const own = Buffer.from(rootFingerprint(rootKey));
  const given = Buffer.from(fingerprint);
  return own.length === given.length && timingSafeEqual(own, given);
}

/** Five bytes at a time give eight characters; twenty bytes need no padding. */
function encodeBase32(bytes: Uint8Array): string {
  let bits = 0n;
  for (const byte of bytes) bits = (bits << 8n) | BigInt(byte);
  let text = '';
  for (let left = bytes.length * 8; left > 0; left -= 5) text += alphabet[Number((bits >> BigInt(left - 5)) & 31n)];
  return text;
}
