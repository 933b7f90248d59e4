import type { AzureContainer } from './azure-blob-container.ts';
import { firstPage } from './azure-blob-list.ts';
import { lockedUntil } from './azure-blob-retention.ts';
import { ObjectNotFound } from './errors.ts';

const versionsPerRequestMax = 1_000;
const deletedAtOnceMax = 8;

/**
 * With versioning, deleting a blob leaves what it was as an earlier version, still paid for. So the blob goes first, with its
 * snapshots, and then each version by its id. All names are tried before the first failure is thrown. What soft delete
 * keeps for a while can't be removed by anybody.
 */
export async function deleteEveryVersion(
  container: AzureContainer,
  names: readonly string[],
  signal: AbortSignal,
): Promise<void> {
  const blobs = names.map((name) => ({ name, blob: container.blob(name) }));
  const failures: unknown[] = [];
  for (let first = 0; first < blobs.length; first += deletedAtOnceMax) {
    const group = blobs.slice(first, first + deletedAtOnceMax);
    const outcomes = await Promise.allSettled(group.map(({ name }) => deleteBlob(container, name, signal)));
    signal.throwIfAborted();
    for (const outcome of outcomes) if (outcome.status === 'rejected') failures.push(outcome.reason);
  }
  if (failures.length > 0) throw failures[0];
}

async function deleteBlob(container: AzureContainer, name: string, signal: AbortSignal): Promise<void> {
  const blob = container.blob(name);
  const remove = async (doing: string, work: (signal: AbortSignal) => Promise<unknown>, version?: string) => {
    try {
      await container.request(doing, name, signal, work);
    } catch (error) {
      if (!(error instanceof ObjectNotFound)) throw await lockedUntil(container, error, name, version, signal);
    }
  };
  await remove('deleting', (abortSignal) => blob.delete({ abortSignal, deleteSnapshots: 'include' }));
  for (const version of await versionsOf(container, name, signal))
    await remove('deleting a version', (abortSignal) => blob.withVersion(version).delete({ abortSignal }), version);
}

/** The blob's name is the first of all that begin with it, so the listing stops at the first other one. */
async function versionsOf(container: AzureContainer, name: string, signal: AbortSignal): Promise<string[]> {
  const key = container.prefix + name;
  const found: string[] = [];
  let token: string | undefined;
  for (;;) {
    const from = token;
    const page = await container.request('listing versions', name, signal, (abortSignal) =>
      firstPage(container, abortSignal, {
        prefix: key,
        maxPageSize: versionsPerRequestMax,
        includeVersions: true,
        ...(from !== undefined && { continuationToken: from }),
      }),
    );
    const items = page.segment.blobItems;
    const ours = items.filter((item) => item.name === key);
    for (const { versionId } of ours) if (versionId !== undefined) found.push(versionId);
    token = page.continuationToken || undefined;
    // A store that repeats its marker would keep us here for ever.
    if (ours.length < items.length || token === undefined || token === from) return found;
  }
}
