import { createHash } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openAzureTarget } from '../../storage-targets/azure-blob.ts';
import { connectAzure } from '../../storage-targets/azure-blob-connection.ts';
import { examineContainerLock } from '../../storage-targets/azure-blob-examine.ts';
import type { StorageTarget } from '../../storage-targets/storage-target.ts';
import { withRetry } from '../../storage-targets/with-retry.ts';
import { wrapTarget } from '../../storage-targets/wrap-target.ts';
import { retentionContract, storageTargetContract } from '../contract/storage-target.ts';
import { type AzureImmutability, startAzureImmutability } from '../fakes/azure-immutability.ts';
import { type AzurePeer, azureOptions, azuriteNeeds, sasFor, startAzurite } from '../peers/azure.ts';
import { caught, never } from './caught.ts';

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
    // azurite closes what was idle for five seconds, on a busy machine just when the next request comes.
    open: async () => withRetry(await openAzureTarget(azureOptions(peer, await peer.createContainer()))),
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

  describe('immutability by a shared access signature (stub of the documented answers)', () => {
    const until = new Date(Date.now() + 3_600_000);
    /** Its holder may not ask whether the container locks at all. */
    const opened = async (permissions: string, immutability: boolean, policyMode: 'Locked' | 'Unlocked' = 'Locked') => {
      const container = await stub.createContainer({ immutability });
      const credentials = { kind: 'sas', token: sasFor(peer, container, permissions, until.getTime()) } as const;
      const options = azureOptions(stub.peer, container);
      const owner = await openAzureTarget(options);
      return { owner, target: await openAzureTarget({ ...options, credentials, policyMode }) };
    };
    const put = (target: StorageTarget, name: string, retainUntil = until) => {
      const bytes = Buffer.from(name);
      return target.putIfAbsent(
        name,
        bytes,
        { sha256: createHash('sha256').update(bytes).digest(), retainUntil },
        never,
      );
    };

    it('takes permission i, which the error names', async () => {
      const { owner, target } = await opened('rlc', true);
      await using _ = owner;
      await using _target = target;
      const error = await caught(put(target, 'locked'));
      expect(error.code).toBe('ACCESS_DENIED');
      expect(error.shown).toMatch(/permission i of a SAS/);
    });

    it('is Unsupported where the first blob turns out not to be locked, and again with each put', async () => {
      const { owner, target } = await opened('rlci', false);
      await using _ = owner;
      await using _target = target;
      for (const name of ['one', 'two']) {
        const error = await caught(put(target, name));
        expect(error.code).toBe('UNSUPPORTED');
        expect(error.shown).toMatch(/did not lock it: make a container with version-level immutability/);
      }
    });

    it('keeps the mode that a blob has when its lock is lengthened, and gives way to whoever may unlock it', async () => {
      const { owner, target } = await opened('rlci', true, 'Unlocked');
      await using _ = owner;
      await using _target = target;
      await put(target, 'governed');
      const later = new Date(until.getTime() + 3_600_000);
      // Of an owner whose own mode is the stricter one.
      await owner.extendRetention('governed', later, never);
      const { client } = await connectAzure(azureOptions(stub.peer, owner.description.split('/')[3] ?? ''));
      const blob = client.getBlobClient('failkit/governed');
      expect(await blob.getProperties()).toMatchObject({ immutabilityPolicyMode: 'Unlocked' });
      expect((await caught(target.delete(['governed'], never))).code).toBe('IMMUTABLE');
      // Governance: whoever has the permission takes the lock away, and then deletes.
      await blob.deleteImmutabilityPolicy();
      await owner.delete(['governed'], never);
      expect((await caught(owner.head('governed', never))).code).toBe('OBJECT_NOT_FOUND');
    });

    it('is looked at from outside: what a default policy and an archive would do', async () => {
      const options = azureOptions(stub.peer, await stub.createContainer({ defaultPolicy: true }));
      const { client } = await connectAzure(options);
      const blob = client.getBlockBlobClient('failkit/cold');
      await blob.upload('x', 1);
      const warm = await examineContainerLock(options, never);
      expect(warm).toMatchObject({ enabled: true, hasDefaultRetention: true, archives: null });
      await blob.setAccessTier('Archive');
      expect(await examineContainerLock(options, never)).toMatchObject({ archives: ['Archive'] });
      const none = azureOptions(stub.peer, await stub.createContainer({ immutability: false }));
      expect(await examineContainerLock(none, never)).toMatchObject({ enabled: false, hasDefaultRetention: false });
    });

    it('a put whose lock could not be looked at is tried again, and taken for its own', async () => {
      const { owner, target } = await opened('rlci', true);
      await using _ = owner;
      await using retried = withRetry(target);
      stub.busyLooks = 1;
      await put(retried, 'looked-at-late');
      expect(stub.busyLooks).toBe(0);
      expect((await caught(owner.delete(['looked-at-late'], never))).code).toBe('IMMUTABLE');
    });

    it('of a name that is taken and locked, a put is told that it exists', async () => {
      const { owner, target } = await opened('rlci', true);
      await using _ = owner;
      await using _target = target;
      await put(target, 'taken');
      expect((await caught(put(target, 'taken'))).code).toBe('OBJECT_EXISTS');
    });
  });
});
