import { ObjectNotFound } from '../storage-targets/errors.ts';
import type { StorageTarget } from '../storage-targets/storage-target.ts';
import { invertedNumberOf, machinesPrefix, repositoryName, trustName, trustPrefix } from './names.ts';
import { checkRoot, parseRepository, type Repository } from './repository.ts';
import { parseTrust, type TrustStatement } from './trust.ts';

/** A repository whose root was checked against the operator's pin. */
export interface OpenRepository {
  readonly target: StorageTarget;
  readonly repository: Repository;
  readonly trust: TrustStatement;
}

/** No repository at this place. */
export class RepositoryNotFound extends Error {
  readonly code = 'REPOSITORY_NOT_FOUND';
  override readonly name = 'RepositoryNotFound';
}

/** Three requests. `pinnedRoot`: key id of the root key (or of one that it replaced), 16 bytes. */
export async function openRepository(
  target: StorageTarget,
  pinnedRoot: Uint8Array,
  signal: AbortSignal,
): Promise<OpenRepository> {
  const repository = parseRepository(await readDescriptor(target, signal));
  const n = await newestNumber(target, trustPrefix, signal);
  if (n === null)
    throw new RepositoryNotFound(`${target.description} has no trust statement: the repository is damaged`);
  const bytes = await target.get(trustName(n), null, signal);
  const trust = parseTrust(n, repository.repositoryId, bytes);
  checkRoot(repository, trust, pinnedRoot);
  return { target, repository, trust };
}

async function readDescriptor(target: StorageTarget, signal: AbortSignal): Promise<Uint8Array> {
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

/** Newest number under a prefix whose names count downwards; null when there is none. One LIST with limit 1. */
export async function newestNumber(target: StorageTarget, prefix: string, signal: AbortSignal): Promise<number | null> {
  for await (const { name } of target.list(prefix, { limit: 1 }, signal)) {
    const number = invertedNumberOf(name);
    if (number !== null) return number;
  }
  return null;
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
  for await (const { name } of target.list(machinesPrefix, { limit: 1, startAfter }, signal)) {
    return /^machines\/([0-9a-f]{32})\//.exec(name)?.[1] ?? null;
  }
  return null;
}
