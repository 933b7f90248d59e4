import { afterAll, beforeAll, describe } from 'vitest';
import { openAzureTarget } from '../../storage-targets/azure-blob.ts';
import { wrapTarget } from '../../storage-targets/wrap-target.ts';
import { retentionContract, storageTargetContract } from '../contract/storage-target.ts';
import { type AzureImmutability, startAzureImmutability } from '../fakes/azure-immutability.ts';
import { type AzurePeer, azureOptions, azuriteNeeds, startAzurite } from '../peers/azure.ts';

const needs = await azuriteNeeds();

describe.skipIf(needs !== null)(needs ?? 'Azure Blob storage at azurite, over TLS', () => {
  let peer: AzurePeer;
  let stub: AzureImmutability;
  beforeAll(async () => {
    peer = await startAzurite();
    stub = await startAzureImmutability(peer);
  });
  afterAll(async () => {
    await stub?.[Symbol.asyncDispose]();
    await peer?.stop();
  });

  storageTargetContract({
    name: 'a container',
    lacks: { objectLock: true },
    open: async () => openAzureTarget(azureOptions(peer, await peer.createContainer())),
  });
  storageTargetContract({
    name: 'a container with every wrapper around it',
    lacks: { objectLock: true },
    manyObjects: 5,
    open: async () =>
      wrapTarget(await openAzureTarget(azureOptions(peer, await peer.createContainer())), {
        inFlightMax: 16,
        uploadBytesPerSecond: 1e9,
        downloadBytesPerSecond: 1e9,
      }).target,
  });

  // No package offers immutability policies of Azure.
  retentionContract({
    name: 'immutability (stub of the documented answers)',
    open: async ({ objectLock }) =>
      openAzureTarget(azureOptions(stub.peer, await stub.createContainer({ immutability: objectLock }))),
  });
});
