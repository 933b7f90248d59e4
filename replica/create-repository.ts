import { randomBytes } from 'node:crypto';
import type { PublicKey, SigningKey } from '../crypto/signing.ts';
import { sha256 } from '../crypto/suite.ts';
import type { StorageTarget } from '../storage-targets/storage-target.ts';
import { repositoryName, trustName } from './names.ts';
import { putOrCompare } from './put-once.ts';
import { encodeRepository, type Repository } from './repository.ts';
import { encodeTrust, type TrustStatement } from './trust.ts';

/** Making a repository, and adding trust statements to it. */

/** There is a repository at this place already. */
export class RepositoryExists extends Error {
  readonly code = 'REPOSITORY_EXISTS';
  override readonly name = 'RepositoryExists';
}
/** Somebody else added a trust statement at the same moment. */
export class TrustRaced extends Error {
  readonly code = 'TRUST_RACED';
  override readonly name = 'TrustRaced';
}

export interface NewRepository {
  readonly root: SigningKey;
  /** RSA SubjectPublicKeyInfo, DER. */
  readonly recoveryPublicKey: Uint8Array;
  /** Agents that are certified from the start. */
  readonly agents: readonly PublicKey[];
  readonly createdMs: number;
}

/** Puts the descriptor and trust statement 0. Throws RepositoryExists, and then nothing was changed. */
export async function createRepository(
  target: StorageTarget,
  fields: NewRepository,
  signal: AbortSignal,
): Promise<Repository> {
  const repositoryId = Uint8Array.from(randomBytes(16));
  const { root, createdMs } = fields;
  const repository = { repositoryId, createdMs, firstRoot: root.publicKey };
  const descriptor = encodeRepository(repository, root);
  if (!(await putOrCompare(target, repositoryName, descriptor, sha256(descriptor), signal))) {
    throw new RepositoryExists(`${target.description} holds a repository already: nothing was changed`);
  }
  const statement: TrustStatement = {
    repositoryId,
    n: 0,
    previous: new Uint8Array(32),
    createdMs,
    root: root.publicKey,
    lineage: [],
    recoveryPublicKey: fields.recoveryPublicKey,
    agents: fields.agents.map((key) => ({ key, revoked: null })),
    retentionFloorDays: 0,
  };
  await putTrust(target, statement, root, signal);
  return repository;
}

/** Puts the next trust statement. Throws TrustRaced when its number is taken. */
export async function putTrust(
  target: StorageTarget,
  statement: TrustStatement,
  root: SigningKey,
  signal: AbortSignal,
): Promise<void> {
  const bytes = encodeTrust(statement, root);
  if (await putOrCompare(target, trustName(statement.n), bytes, sha256(bytes), signal)) return;
  throw new TrustRaced(
    `${trustName(statement.n)} exists already: somebody else changed the trust at the same moment; look again and repeat`,
  );
}
