import { createPrivateKey, createPublicKey, getFips, type KeyObject } from 'node:crypto';
import { KeyFileUnusable, SignatureInvalid } from './errors.ts';
import { labelledSha256 } from './labelled-hash.ts';
import {
  algorithmOf,
  ecdsaP256,
  ed25519,
  type SignatureAlgorithm,
  signatureAlgorithm,
} from './signature-algorithms.ts';

export interface PublicKey {
  /** Id of the signature algorithm. */
  readonly algorithm: number;
  /** Ed25519: the 32 bytes of RFC 8032. ECDSA: the uncompressed point. */
  readonly bytes: Uint8Array;
}

/** A live private key. It leaves the process only through `exportPem`. */
export class SigningKey {
  readonly publicKey: PublicKey;
  readonly #key: KeyObject;
  readonly #algorithm: SignatureAlgorithm;

  private constructor(key: KeyObject, algorithm: SignatureAlgorithm) {
    this.#key = key;
    this.#algorithm = algorithm;
    this.publicKey = { algorithm: algorithm.id, bytes: rawPublicKey(key, algorithm) };
  }

  /** Ed25519; where OpenSSL's FIPS module is in force, which may not have it, ECDSA P-256. */
  static generate(algorithm: SignatureAlgorithm = getFips() === 1 ? ecdsaP256 : ed25519): SigningKey {
    return new SigningKey(algorithm.generate(), algorithm);
  }

  /** `origin` names the key in error messages. Throws KeyFileUnusable for anything but a private key of a known algorithm in PEM. */
  static fromPem(pem: Uint8Array, origin: string): SigningKey {
    const key = parsePrivateKey(pem, origin);
    const algorithm = algorithmOf(key);
    if (algorithm === null)
      throw new KeyFileUnusable(
        `${origin} holds a key of type ${key.asymmetricKeyType}: an Ed25519 private key is needed, or one of ECDSA P-256 or P-384`,
      );
    return new SigningKey(key, algorithm);
  }

  /** Signs `domain ‖ 0x00 ‖ algorithm id ‖ message`; the domain (`failkit/v1/chain-entry`) keeps uses of one key apart. */
  sign(domain: string, message: Uint8Array): Uint8Array {
    return this.#algorithm.sign(signedBytes(domain, this.publicKey.algorithm, message), this.#key);
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
  const algorithm = checkPublicKey(publicKey);
  if (signature.length !== algorithm.signatureBytes)
    throw new SignatureInvalid(
      `an ${algorithm.name} signature has ${algorithm.signatureBytes} bytes, not ${signature.length} (${domain})`,
    );
  const key = importPublicKey(publicKey, algorithm);
  const good = algorithm.verify(signedBytes(domain, publicKey.algorithm, message), key, signature);
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

function checkPublicKey({ algorithm: id, bytes }: PublicKey): SignatureAlgorithm {
  const algorithm = signatureAlgorithm(id);
  if (algorithm === null)
    throw new SignatureInvalid(
      `signature algorithm ${id} is unknown: this release knows 1 (Ed25519), 2 and 3 (ECDSA P-256, P-384); use a newer one`,
    );
  if (bytes.length !== algorithm.publicKeyBytes)
    throw new SignatureInvalid(
      `an ${algorithm.name} public key has ${algorithm.publicKeyBytes} bytes, not ${bytes.length}`,
    );
  if (algorithm === ed25519 && isSmallOrder(bytes))
    throw new SignatureInvalid('this Ed25519 public key is a small-order point: it would accept forgeries');
  return algorithm;
}

function signedBytes(domain: string, algorithm: number, message: Uint8Array): Uint8Array {
  if (!/^[\x21-\x7e]+$/.test(domain))
    throw new RangeError(`signature domain ${JSON.stringify(domain)} is not printable ASCII`);
  return Buffer.concat([Buffer.from(`${domain}\0`, 'ascii'), Uint8Array.of(algorithm), message]);
}

/** Of the few agents and roots that a process meets: to import a key takes as long as to check a signature with it. */
const imported = new Map<string, KeyObject>();
const importedMax = 64;

/** Throws SignatureInvalid for bytes that are no point of the curve. */
function importPublicKey(publicKey: PublicKey, { id, spkiPrefix, name }: SignatureAlgorithm): KeyObject {
  const kept = `${id} ${Buffer.from(publicKey.bytes).toString('hex')}`;
  const known = imported.get(kept);
  if (known !== undefined) return known;
  try {
    const key = createPublicKey({ key: Buffer.concat([spkiPrefix, publicKey.bytes]), format: 'der', type: 'spki' });
    if (imported.size >= importedMax) imported.clear();
    imported.set(kept, key);
    return key;
  } catch (cause) {
    throw new SignatureInvalid(`these bytes are no ${name} public key`, { cause });
  }
}

function rawPublicKey(privateKey: KeyObject, { spkiPrefix }: SignatureAlgorithm): Uint8Array {
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
