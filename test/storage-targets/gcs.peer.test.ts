import { afterAll, beforeAll, describe } from 'vitest';
import { openGcsTarget } from '../../storage-targets/gcs.ts';
import { wrapTarget } from '../../storage-targets/wrap-target.ts';
import { retentionContract, storageTargetContract } from '../contract/storage-target.ts';
import { type GcsRetention, startGcsRetention } from '../fakes/gcs-retention.ts';
import { fakeGcsNeeds, type GcsPeer, gcsOptions, startFakeGcs } from '../peers/gcs.ts';

const needs = await fakeGcsNeeds();

describe.skipIf(needs !== null)(needs ?? 'Google Cloud Storage at fake-gcs-server, over TLS', () => {
  let peer: GcsPeer;
  let stub: GcsRetention;
  beforeAll(async () => {
    peer = await startFakeGcs();
    stub = await startGcsRetention(peer);
  });
  afterAll(async () => {
    await stub?.[Symbol.asyncDispose]();
    await peer?.stop();
  });

  storageTargetContract({
    name: 'a bucket',
    lacks: { objectLock: true },
    open: async () => openGcsTarget(gcsOptions(peer, await peer.createBucket())),
  });
  storageTargetContract({
    name: 'a bucket with every wrapper around it',
    lacks: { objectLock: true },
    manyObjects: 5,
    open: async () =>
      wrapTarget(await openGcsTarget(gcsOptions(peer, await peer.createBucket())), {
        inFlightMax: 16,
        uploadBytesPerSecond: 1e9,
        downloadBytesPerSecond: 1e9,
      }).target,
  });

  // fake-gcs-server keeps what is said of retention, and deletes all the same.
  for (const versioning of [false, true])
    retentionContract({
      name: `object retention, ${versioning ? 'with' : 'without'} versioning (stub of the documented answers)`,
      open: async ({ objectLock }) =>
        openGcsTarget(gcsOptions(stub.peer, await stub.createBucket({ retention: objectLock, versioning }))),
    });
});
