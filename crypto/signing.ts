import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, sign, verify } from 'node:crypto';
import { KeyFileUnusable, SignatureInvalid } from './errors.ts';
import { labelledSha256 } from './labelled-hash.ts';

/** Ids of signature algorithms, as written in the format. 1: Ed25519 (RFC 8032). ECDSA P-256 and P-384 will get 2 and 3. */
export const ed25519 = 1;
const ed25519PublicKeyBytes = 32;
const ed25519SignatureBytes = 64;

export interface PublicKey {
  readonly algorithm: number;
  /** Ed25519: the 32 bytes of RFC 8032. */
  readonly bytes: Uint8Array;
}

/** A live private key. It leaves the process only through `exportPem`. */
export class SigningKey {
  readonly publicKey: PublicKey;
  readonly #key: KeyObject;

  private constructor(key: KeyObject) {
    this.#key = key;
    this.publicKey = { algorithm: ed25519, bytes: rawPublicKey(key) };
  }

  static generate(): SigningKey {
    return new SigningKey(generateKeyPairSync('ed25519').privateKey);
  }

  /** `origin` names the key in error messages. Throws KeyFileUnusable for anything but an Ed25519 private key in PEM. */
  static fromPem(pem: Uint8Array, origin: string): SigningKey {
    const key = parsePrivateKey(pem, origin);
    if (key.asymmetricKeyType !== 'ed25519')
      throw new KeyFileUnusable(
        `${origin} holds a key of type ${key.asymmetricKeyType}: an Ed25519 private key is needed`,
      );
    return new SigningKey(key);
  }

  /** Signs `domain ‖ 0x00 ‖ algorithm id ‖ message`; the domain (`failkit/v1/chain-entry`) keeps uses of one key apart. */
  sign(domain: string, message: Uint8Array): Uint8Array {
    return sign(null, signedBytes(domain, this.publicKey.algorithm, message), this.#key);
  }

  /** PKCS#8 PEM, unencrypted: the caller zeroes it after use. */
  exportPem(): Uint8Array {
    return Buffer.from(this.#key.export({ type: 'pkcs8', format: 'pem' }));
  }

  toJSON(): string {
    return '[redacted]';
  }
}

/** Returns if the signature is good, else throws SignatureInvalid: also for an unknown algorithm or a wrong length. */
export function verifySignature(
  publicKey: PublicKey,
  domain: string,
  message: Uint8Array,
  signature: Uint8Array,
): void {
  checkPublicKey(publicKey);
  if (signature.length !== ed25519SignatureBytes)
    throw new SignatureInvalid(`an Ed25519 signature has 64 bytes, not ${signature.length} (${domain})`);
  const good = verify(null, signedBytes(domain, publicKey.algorithm, message), importPublicKey(publicKey), signature);
  if (!good)
    throw new SignatureInvalid(`signature for ${domain} does not belong to these bytes and key ${hexKeyId(publicKey)}`);
}

/** 16 bytes: start of SHA-256 over `failkit/v1/public-key` ‖ 0x00 ‖ algorithm id ‖ raw key. Throws SignatureInvalid for a bad key. */
export function keyIdOf(publicKey: PublicKey): Uint8Array {
  return publicKeyHash(publicKey).slice(0, 16);
}

/** The 32-byte hash that key ids and fingerprints are cut from. */
export function publicKeyHash(publicKey: PublicKey): Uint8Array {
  checkPublicKey(publicKey);
  return labelledSha256('failkit/v1/public-key', Uint8Array.of(publicKey.algorithm), publicKey.bytes);
}

function checkPublicKey({ algorithm, bytes }: PublicKey): void {
  if (algorithm !== ed25519)
    throw new SignatureInvalid(
      `signature algorithm ${algorithm} is unknown: this release knows 1 (Ed25519); use a newer one`,
    );
  if (bytes.length !== ed25519PublicKeyBytes)
    throw new SignatureInvalid(`an Ed25519 public key has 32 bytes, not ${bytes.length}`);
  if (isSmallOrder(bytes))
    throw new SignatureInvalid('this Ed25519 public key is a small-order point: it would accept forgeries');
}

function signedBytes(domain: string, algorithm: number, message: Uint8Array): Uint8Array {
  if (!/^[\x21-\x7e]+$/.test(domain))
    throw new RangeError(`signature domain ${JSON.stringify(domain)} is not printable ASCII`);
  return Buffer.concat([Buffer.from(`${domain}\0`, 'ascii'), Uint8Array.of(algorithm), message]);
}

/** DER in front of the 32 raw bytes in an Ed25519 SubjectPublicKeyInfo (RFC 8410 section 4). */
const spkiPrefix = Buffer.from('302a300506032b6570032100', 'hex');

function importPublicKey(publicKey: PublicKey): KeyObject {
  return createPublicKey({ key: Buffer.concat([spkiPrefix, publicKey.bytes]), format: 'der', type: 'spki' });
}

function rawPublicKey(privateKey: KeyObject): Uint8Array {
  const spki = createPublicKey(privateKey).export({ type: 'spki', format: 'der' });
  return new Uint8Array(spki.subarray(spkiPrefix.length));
}

/** Every y coordinate of a point whose order divides 8, non-canonical ones included, sign bit cleared. */
const smallOrderPoints = [
  '0000000000000000000000000000000000000000000000000000000000000000',
  '0100000000000000000000000000000000000000000000000000000000000000',
  '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05',
  'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a',
  'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
];

/** Under such a key one signature fits many messages. OpenSSL takes it, newer Node does not: refuse it everywhere. */
function isSmallOrder(bytes: Uint8Array): boolean {
  const point = Buffer.from(bytes);
  point.writeUInt8(point.readUInt8(31) & 0x7f, 31);
  return smallOrderPoints.includes(point.toString('hex'));
}

function hexKeyId(publicKey: PublicKey): string {
  return Buffer.from(keyIdOf(publicKey)).toString('hex');
}

function parsePrivateKey(pem: Uint8Array, origin: string): KeyObject {
  try {
    return createPrivateKey({ key: Buffer.from(pem), format: 'pem' });
  } catch (cause) {
    throw new KeyFileUnusable(`${origin} is not an unencrypted PEM private key: check that it is the right file`, {
      cause,
    });
  }
}
