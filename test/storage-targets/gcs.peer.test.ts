import { createHash } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openGcsTarget } from '../../storage-targets/gcs.ts';
import { examineBucketRetention } from '../../storage-targets/gcs-examine.ts';
import { wrapTarget } from '../../storage-targets/wrap-target.ts';
import { retentionContract, storageTargetContract } from '../contract/storage-target.ts';
import { type GcsRetention, startGcsRetention } from '../fakes/gcs-retention.ts';
import { fakeGcsNeeds, type GcsPeer, gcsOptions, startFakeGcs } from '../peers/gcs.ts';
import { caught, never, put } from './caught.ts';

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

  it('with versioning on, a delete leaves no generation behind (stub of the documented answers)', async () => {
    const bucket = await stub.createBucket({ retention: false, versioning: true });
    await using target = await openGcsTarget(gcsOptions(stub.peer, bucket));
    for (const name of ['one', 'two']) await put(target, name);
    await target.delete(['one', 'two'], never);
    expect((await caught(target.head('one', never))).code).toBe('OBJECT_NOT_FOUND');
    expect(stub.noncurrentOf(bucket)).toEqual([]);
  });

  describe('object retention from outside (stub of the documented answers)', () => {
    const rule = (type: string, condition: object) => ({ lifecycle: { rule: [{ action: { type }, condition }] } });

    it.each([
      ['no rules', {}, { enabled: true, hasDefaultRetention: false, deletesOld: false, archives: [] }],
      ['a rule that deletes what is old', rule('Delete', { age: 30 }), { deletesOld: true }],
      ['one that deletes what is noncurrent', rule('Delete', { isLive: false, age: 30 }), { deletesOld: false }],
      ['one that moves to the archive', rule('SetStorageClass', { age: 30 }), { deletesOld: false, archives: [] }],
      ['a retention policy', { retentionPolicy: { retentionPeriod: '86400' } }, { hasDefaultRetention: true }],
      ['holds by default', { defaultEventBasedHold: true }, { hasDefaultRetention: true }],
    ])('is seen with %s', async (_, settings, expected) => {
      const options = gcsOptions(stub.peer, await stub.createBucket({ settings }));
      expect(await examineBucketRetention(options, never)).toMatchObject(expected);
    });

    it('where the settings may not be read, the answer to a put tells', async () => {
      const bucket = await stub.createBucket({ retention: false, secret: true });
      await using target = await openGcsTarget(gcsOptions(stub.peer, bucket));
      expect((await examineBucketRetention(gcsOptions(stub.peer, bucket), never)).enabled).toBeNull();
      const bytes = Buffer.from('x');
      const sha256 = createHash('sha256').update(bytes).digest();
      const retainUntil = new Date(Date.now() + 3_600_000);
      const error = await caught(target.putIfAbsent('locked', bytes, { sha256, retainUntil }, never));
      expect(error.code).toBe('CHECKSUM_REFUSED');
      expect(error.shown).toMatch(/Has the bucket object retention enabled\?/);
      expect((await caught(target.head('locked', never))).code).toBe('OBJECT_NOT_FOUND');
      await put(target, 'plain');
      const refused = await caught(target.extendRetention('plain', retainUntil, never));
      expect(refused.code).toBe('UNSUPPORTED');
    });

    it('is never taken for granted: a store that leaves it out of its answer is Unsupported', async () => {
      const bucket = await stub.createBucket({ forgetful: true });
      await using target = await openGcsTarget(gcsOptions(stub.peer, bucket));
      const bytes = Buffer.from('x');
      const sha256 = createHash('sha256').update(bytes).digest();
      const retainUntil = new Date(Date.now() + 3_600_000);
      const error = await caught(target.putIfAbsent('locked', bytes, { sha256, retainUntil }, never));
      expect(error.code).toBe('UNSUPPORTED');
    });

    it('keeps the mode that an object has when its lock is lengthened', async () => {
      const options = gcsOptions(stub.peer, await stub.createBucket());
      await using governed = await openGcsTarget({ ...options, retentionMode: 'Unlocked' });
      await using target = await openGcsTarget(options);
      const bytes = Buffer.from('x');
      const sha256 = createHash('sha256').update(bytes).digest();
      const until = new Date(Date.now() + 3_600_000);
      await governed.putIfAbsent('governed', bytes, { sha256, retainUntil: until }, never);
      const later = new Date(until.getTime() + 3_600_000);
      await target.extendRetention('governed', later, never);
      // A change of the mode would have been refused.
      expect((await caught(target.delete(['governed'], never))).message).toContain(later.toISOString());
    });
  });
});
