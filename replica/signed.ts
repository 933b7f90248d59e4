import { SignatureInvalid } from '../crypto/errors.ts';
import { type SignatureAlgorithm, signatureAlgorithm } from '../crypto/signature-algorithms.ts';
import { type PublicKey, type SigningKey, verifySignature } from '../crypto/signing.ts';
import type { ByteReader, ByteWriter } from './encoding.ts';

/** Public keys and signatures as the format writes them: docs/format.md §2. */

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
  const { id, publicKeyBytes } = readAlgorithm(reader);
  const start = reader.offset;
  const bytes = reader.bytes().slice();
  if (bytes.length !== publicKeyBytes) throw reader.invalid(`a public key of ${bytes.length} bytes`, start);
  return { algorithm: id, bytes };
}

/** Appends a signature over everything written so far. */
export function writeSignature(writer: ByteWriter, domain: SignatureDomain, key: SigningKey): ByteWriter {
  const signature = key.sign(domain, writer.finish());
  return writer.u8(key.publicKey.algorithm).raw(signature);
}

export function readSignature(reader: ByteReader): Signature {
  const { id, signatureBytes } = readAlgorithm(reader);
  return { algorithm: id, bytes: reader.raw(signatureBytes).slice() };
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

function readAlgorithm(reader: ByteReader): SignatureAlgorithm {
  const id = reader.u8();
  const algorithm = signatureAlgorithm(id);
  if (algorithm === null) throw reader.invalid(`unknown signature algorithm ${id}`, reader.offset - 1);
  return algorithm;
}
