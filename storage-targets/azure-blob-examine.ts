import { connectAzure } from './azure-blob-connection.ts';
import { AzureContainer, type AzureOptions } from './azure-blob-container.ts';
import { firstPage } from './azure-blob-list.ts';
import { enablingImmutability, immutabilityOf } from './azure-blob-retention.ts';
import type { BucketLock } from './bucket-lock.ts';

const lookedAtMax = 1_000;

/**
 * Lifecycle rules belong to the account and are told by Azure's management service alone, where an agent has no business. What they did
 * already is told by the tiers of the blobs.
 */
export async function examineContainerLock(options: AzureOptions, signal: AbortSignal): Promise<BucketLock> {
  using connection = await connectAzure(options);
  const container = new AzureContainer(connection.client, options);
  const found = await immutabilityOf(container, signal);
  const page = await container.request('listing', '', signal, (abortSignal) =>
    firstPage(container, abortSignal, { prefix: container.prefix, maxPageSize: lookedAtMax }),
  );
  const isArchived = page.segment.blobItems.some(({ properties }) => properties.accessTier === 'Archive');
  return {
    feature: 'version-level immutability',
    enabled: found?.enabled ?? null,
    enabling: enablingImmutability,
    hasDefaultRetention: found?.hasDefaultPolicy === true,
    archives: isArchived ? ['Archive'] : null,
    deletesOld: false,
  };
}
