import type { PublicKey, SigningKey } from '../crypto/signing.ts';
import { ByteReader, ByteWriter } from './encoding.ts';
import { repositoryName } from './names.ts';
import { checkSignature, readPublicKey, readSignature, writePublicKey, writeSignature } from './signed.ts';

/** The repository descriptor: docs/format.md §3. */
export interface Repository {
  /** 16 bytes. */
  readonly repositoryId: Uint8Array;
  readonly createdMs: number;
  /** The root key that the repository began with; the trust statements say which is in force. */
  readonly firstRoot: PublicKey;
}

export function encodeRepository(repository: Repository, root: SigningKey): Uint8Array {
  const writer = new ByteWriter().ascii('FKRP').u16(1).raw(repository.repositoryId).u64(repository.createdMs);
  writePublicKey(writer, repository.firstRoot);
  return writeSignature(writer, 'failkit/v1/repository', root).finish();
}

/** Checks the signature by its own root key; whether that root is the customer's is for `checkRoot`. */
export function parseRepository(bytes: Uint8Array): Repository {
  const reader = new ByteReader(repositoryName, bytes);
  reader.expectAscii('FKRP');
  reader.expectU16(1, 'version');
  const repositoryId = reader.raw(16).slice();
  const createdMs = reader.u64();
  const firstRoot = readPublicKey(reader);
  const signed = bytes.subarray(0, reader.offset);
  const signature = readSignature(reader);
  reader.end();
  checkSignature(firstRoot, 'failkit/v1/repository', signed, signature, repositoryName);
  return { repositoryId, createdMs, firstRoot };
}
