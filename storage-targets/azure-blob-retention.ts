import type { BlobImmutabilityPolicy } from '@azure/storage-blob';
import { type AzureContainer, incompleteAnswer } from './azure-blob-container.ts';
import { recordedSha256 } from './checked-bytes.ts';
import { AccessDenied, Immutable, RequestRefused, StoreUnavailable, Throttled, Unsupported } from './errors.ts';
import type { ObjectInfo } from './storage-target.ts';

/** Version-level immutability: learn.microsoft.com/azure/storage/blobs/immutable-version-level-worm-policies */

export const enablingImmutability =
  'make a container with version-level immutability (az storage container-rm create --enable-vlw true), in an account that keeps versions';

/** Azure's own mode for an object that nobody can unlock, and for one that whoever has the permission can. */
export type PolicyMode = 'Locked' | 'Unlocked';

export interface BlobState {
  readonly info: ObjectInfo;
  readonly retainUntil: Date | null;
  readonly policyMode: PolicyMode | null;
}

export async function lookAt(
  container: AzureContainer,
  name: string,
  signal: AbortSignal,
  version?: string,
): Promise<BlobState> {
  const blob = version === undefined ? container.blob(name) : container.blob(name).withVersion(version);
  const found = await container.request('looking at it', name, signal, (abortSignal) =>
    blob.getProperties({ abortSignal }),
  );
  const { contentLength: bytes, lastModified: modified, metadata } = found;
  if (bytes === undefined || modified === undefined) throw incompleteAnswer(container, name);
  return {
    info: { name, bytes, modified, sha256: recordedSha256(metadata?.sha256) },
    retainUntil: found.immutabilityPolicyExpiresOn ?? null,
    policyMode: modeOf(found.immutabilityPolicyMode),
  };
}

/** The header's value is documented in both cases. */
function modeOf(text: string | undefined): PolicyMode | null {
  const lower = text?.toLowerCase();
  if (lower === 'locked') return 'Locked';
  return lower === 'unlocked' ? 'Unlocked' : null;
}

/** Azure keeps whole seconds. */
export function policyUntil(until: Date, policyMode: PolicyMode): BlobImmutabilityPolicy {
  return { expiriesOn: new Date(Math.ceil(until.getTime() / 1000) * 1000), policyMode };
}

/** Before the first lock of this process. Where these credentials may not ask, the first blob tells: see `requireLocked`. */
export async function requireImmutability(container: AzureContainer, signal: AbortSignal): Promise<void> {
  if (container.lockSeen || (await immutabilityOf(container, signal))?.enabled !== false) return;
  throw new Unsupported(`${container.place} has no version-level immutability: ${enablingImmutability}`);
}

export async function immutabilityOf(
  container: AzureContainer,
  signal: AbortSignal,
): Promise<{ readonly enabled: boolean; readonly hasDefaultPolicy: boolean } | null> {
  try {
    const found = await container.request('reading its properties', '', signal, (abortSignal) =>
      container.client.getProperties({ abortSignal }),
    );
    return {
      enabled: found.isImmutableStorageWithVersioningEnabled === true,
      hasDefaultPolicy: found.hasImmutabilityPolicy === true,
    };
  } catch (error) {
    if (error instanceof AccessDenied) return null;
    throw error;
  }
}

/** After the first put of this process that was to lock: a store that does not know the headers ignores them. */
export async function requireLocked(
  container: AzureContainer,
  name: string,
  until: Date,
  wanted: PolicyMode,
  signal: AbortSignal,
): Promise<void> {
  if (container.lockSeen) return;
  const { retainUntil, policyMode } = await lookAt(container, name, signal).catch(mayBeThere);
  if (retainUntil === null || retainUntil < until)
    throw new Unsupported(`${container.subject(name)} was put, and the store did not lock it: ${enablingImmutability}`);
  if (wanted === 'Locked' && policyMode !== 'Locked')
    throw new Unsupported(`${container.subject(name)} was put, and the store locked it in mode ${policyMode} only`);
  if (wanted === container.policyMode) container.lockSeen = true;
}

/** The put was done: who tries it again because of a throttled look has to know that the name may be taken by its own bytes. */
function mayBeThere(error: unknown): never {
  throw error instanceof Throttled ? new StoreUnavailable(error.message, { cause: error }) : error;
}

export async function extendRetention(
  container: AzureContainer,
  name: string,
  until: Date,
  signal: AbortSignal,
): Promise<void> {
  const { retainUntil, policyMode } = await lookAt(container, name, signal);
  if (retainUntil !== null && retainUntil >= until) return;
  await requireImmutability(container, signal);
  // A blob keeps the mode it has: a locked policy cannot be relaxed, and an unlocked one is not tightened behind anyone's back.
  const mode = policyMode ?? container.policyMode;
  try {
    await container.request('extending retention', name, signal, (abortSignal) =>
      container.blob(name).setImmutabilityPolicy(policyUntil(until, mode), { abortSignal }),
    );
  } catch (error) {
    if (!(error instanceof Immutable)) throw lockRefused(error);
    // To shorten a locked policy is refused: another host has lengthened it meanwhile, by more.
    const now = await lookAt(container, name, signal);
    if (now.retainUntil === null || now.retainUntil < until) throw error;
  }
  await requireLocked(container, name, until, mode, signal);
}

/** The permission to lock is another one than to put, and the store's answer does not name it. */
export function lockRefused(error: unknown): unknown {
  if (error instanceof AccessDenied)
    return new AccessDenied(
      `${error.message}. To lock blobs takes permission i of a SAS, or the action .../blobs/immutableStorage/runAsSuperUser/action of a role`,
      { cause: error },
    );
  if (!(error instanceof RequestRefused)) return error;
  return new Unsupported(`${error.message}. Has the container version-level immutability?`, { cause: error });
}

/** Azure says that a blob is locked, and not until when. */
export async function lockedUntil(
  container: AzureContainer,
  error: unknown,
  name: string,
  version: string | undefined,
  signal: AbortSignal,
): Promise<unknown> {
  if (!(error instanceof Immutable)) return error;
  const found = await lookAt(container, name, signal, version).catch(() => null);
  signal.throwIfAborted();
  const until = found?.retainUntil;
  return until
    ? new Immutable(`${container.subject(name)} is locked until ${until.toISOString()}`, { cause: error })
    : error;
}
