import { keyIdOf } from '../crypto/signing.ts';
import type { StorageTarget } from '../storage-targets/storage-target.ts';
import { type Damage, damageOf, isDamage } from './damage.ts';
import { ByteReader, sameBytes } from './encoding.ts';
import { repositoryName, trustName, trustPrefix } from './names.ts';
import {
  newestNumber,
  type OpenRepository,
  openRepository,
  RepositoryNotFound,
  readDescriptor,
  readStatement,
} from './open-repository.ts';
import { parseRepository, type Repository } from './repository.ts';
import { checkLineage, checkRoot, parseTrust, RootMismatch, type SignedTrust, TrustBroken } from './trust.ts';

/**
 * Opening a repository whose descriptor or trust statements are damaged, for reading only. The newest statement that the pinned
 * root (or its successor) signed is enough to know who may have written; what a damaged newer one revoked is not known.
 */
export interface SalvagedRepository extends OpenRepository {
  /** Empty when nothing had to be salvaged. */
  readonly damage: readonly Damage[];
}

/** Throws what `openRepository` throws when not even one statement can be trusted. */
export async function openRepositorySalvage(
  target: StorageTarget,
  pinnedRoot: string,
  signal: AbortSignal,
): Promise<SalvagedRepository> {
  try {
    return { ...(await openRepository(target, pinnedRoot, signal)), damage: [] };
  } catch (error) {
    if (!isDamage(error) && !(error instanceof RepositoryNotFound)) throw error;
    const salvaged = await salvage(target, pinnedRoot, signal);
    if (salvaged === null) throw error;
    return salvaged;
  }
}

async function salvage(
  target: StorageTarget,
  pinnedRoot: string,
  signal: AbortSignal,
): Promise<SalvagedRepository | null> {
  const damage: Damage[] = [];
  const descriptor = await tolerate(repositoryName, damage, async () =>
    parseRepository(await readDescriptor(target, signal)),
  );
  const statements = await readableStatements(target, descriptor, damage, signal);
  for (let n = statements.length - 1; n >= 0; n--) {
    const trust = statements[n];
    if (trust === undefined) continue;
    const repository = descriptor ?? describedBy(trust);
    const root = await tolerate(trustName(n), damage, async () => {
      checkLineage(repository, trust);
      checkFirstRoot(repository, trust);
      return checkRoot(trust, pinnedRoot);
    });
    if (root !== null) return { target, repository, trust, pinnedRootReplaced: root === 'replaced', damage };
  }
  return null;
}

/** By number; holes where a statement can't be used. */
async function readableStatements(
  target: StorageTarget,
  descriptor: Repository | null,
  damage: Damage[],
  signal: AbortSignal,
): Promise<readonly (SignedTrust | undefined)[]> {
  const newest = await newestNumber(target, trustPrefix, signal);
  const statements: (SignedTrust | undefined)[] = [];
  for (let n = 0; n <= (newest ?? -1); n++) {
    const before = statements[n - 1];
    const trust = await tolerate(trustName(n), damage, async () => {
      const bytes = await readStatement(target, n, signal);
      return parseTrust(n, descriptor?.repositoryId ?? repositoryIdIn(bytes, n), bytes);
    });
    statements[n] = trust ?? undefined;
    if (trust !== null && before !== undefined && !sameBytes(trust.previous, before.digest)) {
      damage.push(
        damageOf(trustName(n), new TrustBroken(`${trustName(n)}: does not follow statement ${n - 1} as it is stored`)),
      );
    }
  }
  return statements;
}

/** Null, and a note, where the object is damaged or is not there. */
async function tolerate<T>(object: string, damage: Damage[], work: () => Promise<T>): Promise<T | null> {
  try {
    return await work();
  } catch (error) {
    // An older statement of another root: nothing to note, and no use either.
    if (error instanceof RootMismatch) return null;
    if (error instanceof RepositoryNotFound)
      damage.push({ object, code: error.code, what: `${object} is missing`, points: [], certain: true });
    else damage.push(damageOf(object, error));
    return null;
  }
}

/** Every statement names the repository, under the root's signature. */
function repositoryIdIn(statement: Uint8Array, n: number): Uint8Array {
  const reader = new ByteReader(trustName(n), statement);
  reader.expectAscii('FKTS');
  reader.expectU16(1, 'version');
  return reader.raw(16).slice();
}

function describedBy(trust: SignedTrust): Repository {
  const firstRoot = trust.lineage[0]?.oldRoot ?? trust.root;
  return { repositoryId: trust.repositoryId, createdMs: trust.createdMs, firstRoot };
}

function checkFirstRoot(repository: Repository, trust: SignedTrust): void {
  const first = trust.lineage[0]?.oldRoot ?? trust.root;
  if (sameBytes(keyIdOf(first), keyIdOf(repository.firstRoot))) return;
  throw new TrustBroken(`${trustName(trust.n)}: its root key does not descend from the repository's`);
}
