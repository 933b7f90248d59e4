import { generateKeyPairSync, type KeyObject, sign, verify } from 'node:crypto';

/** The signature algorithms of the format, by id (docs/format.md §2). */

export interface SignatureAlgorithm {
  readonly id: number;
  readonly name: string;
  readonly publicKeyBytes: number;
  readonly signatureBytes: number;
  /** DER in front of the raw public key in its SubjectPublicKeyInfo. */
  readonly spkiPrefix: Buffer;
  /** Whether it is the algorithm of this private key. */
  owns(key: KeyObject): boolean;
  generate(): KeyObject;
  sign(message: Uint8Array, key: KeyObject): Uint8Array;
  verify(message: Uint8Array, key: KeyObject, signature: Uint8Array): boolean;
}

/** RFC 8032; its SubjectPublicKeyInfo is that of RFC 8410 section 4. */
export const ed25519: SignatureAlgorithm = {
  id: 1,
  name: 'Ed25519',
  publicKeyBytes: 32,
  signatureBytes: 64,
  spkiPrefix: Buffer.from('302a300506032b6570032100', 'hex'),
  owns: (key) => key.asymmetricKeyType === 'ed25519',
  generate: () => generateKeyPairSync('ed25519').privateKey,
  sign: (message, key) => sign(null, message, key),
  verify: (message, key, signature) => verify(null, message, key, signature),
};

interface Curve {
  readonly id: number;
  readonly name: string;
  readonly namedCurve: string;
  readonly hash: string;
  readonly scalarBytes: number;
  /** Of its base point: SP 800-186 section 3.2.1. */
  readonly order: bigint;
  readonly spkiPrefix: string;
}

/** FIPS 186-5. Public keys are uncompressed points, signatures r ‖ s with s at most half the order. */
function ecdsa({ id, name, namedCurve, hash, scalarBytes, order, spkiPrefix }: Curve): SignatureAlgorithm {
  const dsaEncoding = 'ieee-p1363';
  return {
    id,
    name,
    publicKeyBytes: 1 + 2 * scalarBytes,
    signatureBytes: 2 * scalarBytes,
    spkiPrefix: Buffer.from(spkiPrefix, 'hex'),
    owns: (key) => key.asymmetricKeyType === 'ec' && key.asymmetricKeyDetails?.namedCurve === namedCurve,
    generate: () => generateKeyPairSync('ec', { namedCurve }).privateKey,
    sign(message, key) {
      const signature = sign(hash, message, { key, dsaEncoding });
      const s = scalar(signature.subarray(scalarBytes));
      if (2n * s > order) signature.write((order - s).toString(16).padStart(2 * scalarBytes, '0'), scalarBytes, 'hex');
      return new Uint8Array(signature);
    },
    verify(message, key, signature) {
      // Both s and order - s would be good: of the two only one is, or anybody could change a signature's bytes.
      if (2n * scalar(signature.subarray(scalarBytes)) > order) return false;
      return verify(hash, message, { key, dsaEncoding }, signature);
    },
  };
}

function scalar(bytes: Uint8Array): bigint {
  return BigInt(`0x${Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('hex')}`);
}

export const ecdsaP256 = ecdsa({
  id: 2,
  name: 'ECDSA P-256',
  namedCurve: 'prime256v1',
  hash: 'sha256',
  scalarBytes: 32,
  order: 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n,
  spkiPrefix: '3059301306072a8648ce3d020106082a8648ce3d030107034200',
});

export const ecdsaP384 = ecdsa({
  id: 3,
  name: 'ECDSA P-384',
  namedCurve: 'secp384r1',
  hash: 'sha384',
  scalarBytes: 48,
  order: 0xffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973n,
  spkiPrefix: '3076301006072a8648ce3d020106052b81040022036200',
});

const known: readonly SignatureAlgorithm[] = [ed25519, ecdsaP256, ecdsaP384];

/** Null for an id that this release does not know. */
export function signatureAlgorithm(id: number): SignatureAlgorithm | null {
  return known.find((each) => each.id === id) ?? null;
}

/** Null for a key of another kind. */
export function algorithmOf(privateKey: KeyObject): SignatureAlgorithm | null {
  return known.find((each) => each.owns(privateKey)) ?? null;
}
