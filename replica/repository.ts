import { keyIdOf, type PublicKey, type SigningKey } from '../crypto/signing.ts';
import { ByteReader, ByteWriter, sameBytes } from './encoding.ts';
import { repositoryName } from './names.ts';
import { checkSignature, readPublicKey, readSignature, writePublicKey, writeSignature } from './signed.ts';
import { checkLineage, type TrustStatement } from './trust.ts';

/** The repository descriptor: docs/format.md §3. */
export interface Repository {
  /** 16 bytes. */
  readonly repositoryId: Uint8Array;
  readonly createdMs: number;
  readonly root: PublicKey;
  /** RSA SubjectPublicKeyInfo, DER: every data key is wrapped for its private half, too. */
  readonly recoveryPublicKey: Uint8Array;
}

export function encodeRepository(repository: Repository, root: SigningKey): Uint8Array {
  const writer = new ByteWriter().ascii('FKRP').u16(1).raw(repository.repositoryId).u64(repository.createdMs);
  writePublicKey(writer, repository.root).bytes(repository.recoveryPublicKey);
  return writeSignature(writer, 'failkit/v1/repository', root).finish();
}

/** Checks the signature by its own root key; whether that root is the customer's is for `checkRoot`. */
export function parseRepository(bytes: Uint8Array): Repository {
  const reader = new ByteReader(repositoryName, bytes);
  reader.expectAscii('FKRP');
  reader.expectU16(1, 'version');
  const repositoryId = reader.raw(16).slice();
  const createdMs = reader.u64();
  const root = readPublicKey(reader);
  const recoveryPublicKey = reader.bytes().slice();
  const signed = bytes.subarray(0, reader.offset);
  const signature = readSignature(reader);
  reader.end();
  checkSignature(root, 'failkit/v1/repository', signed, signature, repositoryName);
  return { repositoryId, createdMs, root, recoveryPublicKey };
}

/** The root key of this bucket is not the one that the operator pinned. */
export class RootMismatch extends Error {
  readonly code = 'ROOT_MISMATCH';
  override readonly name = 'RootMismatch';
}

/** `pinned` is the key id of any root in the repository's lineage. Throws RootMismatch. */
export function checkRoot(repository: Repository, trust: TrustStatement, pinned: Uint8Array): void {
  checkLineage(repository, trust);
  const roots = [repository.root, ...trust.lineage.map((step) => step.oldRoot), trust.root];
  if (roots.some((root) => sameBytes(keyIdOf(root), pinned))) return;
  throw new RootMismatch(
    'the root key of this repository is not the one you pinned: this is another repository, or somebody replaced it. Compare the fingerprint with the recovery kit',
  );
}
