import { SignatureInvalid } from '../crypto/errors.ts';
import { ed25519, type PublicKey, type SigningKey, verifySignature } from '../crypto/signing.ts';
import type { ByteReader, ByteWriter } from './encoding.ts';

/** Public keys and signatures as the format writes them: docs/format.md §2. */

const ed25519PublicKeyBytes = 32;
const ed25519SignatureBytes = 64;

export interface Signature {
  readonly algorithm: number;
  readonly bytes: Uint8Array;
}

export type SignatureDomain =
  | 'failkit/v1/repository'
  | 'failkit/v1/trust'
  | 'failkit/v1/root-replacement'
  | 'failkit/v1/key-record'
  | 'failkit/v1/chain-entry';

export function writePublicKey(writer: ByteWriter, key: PublicKey): ByteWriter {
  return writer.u8(key.algorithm).bytes(key.bytes);
}

export function readPublicKey(reader: ByteReader): PublicKey {
  const algorithm = readAlgorithm(reader);
  const start = reader.offset;
  const bytes = reader.bytes().slice();
  if (bytes.length !== ed25519PublicKeyBytes) throw reader.invalid(`a public key of ${bytes.length} bytes`, start);
  return { algorithm, bytes };
}

/** Appends a signature over everything written so far. */
export function writeSignature(writer: ByteWriter, domain: SignatureDomain, key: SigningKey): ByteWriter {
  const signature = key.sign(domain, writer.finish());
  return writer.u8(key.publicKey.algorithm).raw(signature);
}

export function readSignature(reader: ByteReader): Signature {
  const algorithm = readAlgorithm(reader);
  return { algorithm, bytes: reader.raw(ed25519SignatureBytes).slice() };
}

/** `object` names what is signed, for the error. */
export function checkSignature(
  key: PublicKey,
  domain: SignatureDomain,
  message: Uint8Array,
  signature: Signature,
  object: string,
): void {
  try {
    if (signature.algorithm !== key.algorithm) throw new SignatureInvalid('another algorithm than the key has');
    verifySignature(key, domain, message, signature.bytes);
  } catch (cause) {
    if (!(cause instanceof SignatureInvalid)) throw cause;
    throw new SignatureInvalid(`${object}: its signature is not valid: it was altered, or signed by another key`, {
      cause,
    });
  }
}

function readAlgorithm(reader: ByteReader): number {
  const algorithm = reader.u8();
  if (algorithm !== ed25519) throw reader.invalid(`unknown signature algorithm ${algorithm}`, reader.offset - 1);
  return algorithm;
}
