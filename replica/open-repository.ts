import { ObjectNotFound } from '../storage-targets/errors.ts';
import type { StorageTarget } from '../storage-targets/storage-target.ts';
import { sameBytes } from './encoding.ts';
import { invertedNumberOf, machinesPrefix, repositoryName, trustName, trustPrefix } from './names.ts';
import { parseRepository, type Repository } from './repository.ts';
import { checkRoot, checkTrustHistory, parseTrust, type SignedTrust, TrustBroken } from './trust.ts';

/** A repository whose root was checked against the operator's pin. */
export interface OpenRepository {
  readonly target: StorageTarget;
  readonly repository: Repository;
  readonly trust: SignedTrust;
  /** The pinned root was replaced since: the operator should pin the one in force. */
  readonly pinnedRootReplaced: boolean;
}

/** No repository at this place. */
export class RepositoryNotFound extends Error {
  readonly code = 'REPOSITORY_NOT_FOUND';
  override readonly name = 'RepositoryNotFound';
}

/** `pinnedRoot`: fingerprint of the root key, as `parseRootFingerprint` returned it. One LIST, and a GET for each trust statement. */
export async function openRepository(
  target: StorageTarget,
  pinnedRoot: string,
  signal: AbortSignal,
): Promise<OpenRepository> {
  const repository = parseRepository(await readDescriptor(target, signal));
  const statements = await readTrust(target, repository, signal);
  const trust = statements.at(-1);
  if (trust === undefined)
    throw new RepositoryNotFound(`${target.description} has no trust statement: the repository is damaged`);
  return { target, repository, trust, pinnedRootReplaced: checkRoot(trust, pinnedRoot) === 'replaced' };
}

/** The repository under the newest trust statement, which must follow from the one that `repo` was opened under. */
export async function refreshTrust(repo: OpenRepository, signal: AbortSignal): Promise<OpenRepository> {
  const statements = await readTrust(repo.target, repo.repository, signal);
  const known = statements[repo.trust.n];
  const trust = statements.at(-1);
  if (known === undefined || trust === undefined || !sameBytes(known.digest, repo.trust.digest)) {
    throw new TrustBroken(`${trustName(repo.trust.n)} is gone or another than when this run began: it was replaced`);
  }
  return { ...repo, trust };
}

/**
 * Checks the history of trust against the newest statement that is remembered from before: its number and SHA-256. Throws TrustBroken
 * when the store shows less or other: a revocation may have been taken back. One GET, where there are newer statements.
 */
export async function checkKnownTrust(repo: OpenRepository, known: KnownTrust, signal: AbortSignal): Promise<void> {
  const { target, repository, trust } = repo;
  const name = trustName(known.n);
  if (known.n > trust.n) {
    throw new TrustBroken(
      `${name} is known here, but the newest in the store is statement ${trust.n}: newer ones were removed`,
    );
  }
  const bytes = known.n === trust.n ? null : await readStatement(target, known.n, signal);
  const { digest } = bytes === null ? trust : parseTrust(known.n, repository.repositoryId, bytes);
  if (sameBytes(digest, known.digest)) return;
  throw new TrustBroken(
    `${name} is another statement than the one that is known here: the history of trust was replaced`,
  );
}

export interface KnownTrust {
  readonly n: number;
  readonly digest: Uint8Array;
}

async function readTrust(
  target: StorageTarget,
  repository: Repository,
  signal: AbortSignal,
): Promise<readonly SignedTrust[]> {
  const newest = await newestNumber(target, trustPrefix, signal);
  const statements: SignedTrust[] = [];
  for (let n = 0; n <= (newest ?? -1); n++) {
    statements.push(parseTrust(n, repository.repositoryId, await readStatement(target, n, signal)));
  }
  checkTrustHistory(repository, statements);
  return statements;
}

export async function readStatement(target: StorageTarget, n: number, signal: AbortSignal): Promise<Uint8Array> {
  try {
    return await target.get(trustName(n), null, signal);
  } catch (cause) {
    if (!(cause instanceof ObjectNotFound)) throw cause;
    throw new TrustBroken(`${trustName(n)} is missing: trust statements are never deleted, so somebody removed it`, {
      cause,
    });
  }
}

export async function readDescriptor(target: StorageTarget, signal: AbortSignal): Promise<Uint8Array> {
  try {
    return await target.get(repositoryName, null, signal);
  } catch (cause) {
    if (!(cause instanceof ObjectNotFound)) throw cause;
    throw new RepositoryNotFound(
      `${target.description} holds no repository: run "failkit init", or check bucket and prefix`,
      {
        cause,
      },
    );
  }
}

/** Newest number under a prefix whose names count downwards; null when there is none. One LIST with limit 1, a second where names of another form lie before. */
export async function newestNumber(target: StorageTarget, prefix: string, signal: AbortSignal): Promise<number | null> {
  return await firstMatch(target, prefix, '', (name) => invertedNumberOf(name, prefix), signal);
}

/** Ids of all machines that have a replica, by one LIST each. */
export async function* listMachineIds(target: StorageTarget, signal: AbortSignal): AsyncIterable<Uint8Array> {
  let startAfter = machinesPrefix;
  for (;;) {
    const id = await nextMachine(target, startAfter, signal);
    if (id === null) return;
    yield Buffer.from(id, 'hex');
    // '~' sorts after every character that names may have.
    startAfter = `${machinesPrefix}${id}/~`;
  }
}

async function nextMachine(target: StorageTarget, startAfter: string, signal: AbortSignal): Promise<string | null> {
  const idOf = (name: string): string | null => /^machines\/([0-9a-f]{32})\//.exec(name)?.[1] ?? null;
  return await firstMatch(target, machinesPrefix, startAfter, idOf, signal);
}

/** What `read` makes of the first name that it takes: an object that is not ours must not hide those behind it. */
async function firstMatch<T>(
  target: StorageTarget,
  prefix: string,
  startAfter: string,
  read: (name: string) => T | null,
  signal: AbortSignal,
): Promise<T | null> {
  let stray: string | null = null;
  for await (const { name } of target.list(prefix, { limit: 1, startAfter }, signal)) {
    const found = read(name);
    if (found !== null) return found;
    stray = name;
  }
  if (stray === null) return null;
  for await (const { name } of target.list(prefix, { startAfter: stray }, signal)) {
    const found = read(name);
    if (found !== null) return found;
  }
  return null;
}
