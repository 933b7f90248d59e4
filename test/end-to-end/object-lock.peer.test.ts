import { join } from 'node:path';
import {
  DeleteObjectCommand,
  ListObjectVersionsCommand,
  type ObjectVersion,
  PutObjectLockConfigurationCommand,
} from '@aws-sdk/client-s3';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type BucketView, viewBucket } from './bucket.ts';
import { type EndToEndPeers, endToEndNeeds, startPeers } from './peers.ts';
import {
  changeDisk,
  machineName,
  makeSite,
  type Site,
  type SitePeers,
  settingsOf,
  sha256OfDisks,
  sha256OfRestored,
} from './site.ts';

/** Object lock, at a server that enforces it, against somebody with every right. */

const needs = await endToEndNeeds();

describe.skipIf(needs !== null)(needs ?? 'a bucket with object lock', () => {
  let servers: EndToEndPeers;
  let peers: SitePeers;
  let bucket: BucketView;
  let site: Site;
  beforeAll(async () => {
    servers = await startPeers();
    const name = await servers.s3.createBucket({ objectLock: true });
    peers = { ...(await servers.place()).peers, bucket: name };
    bucket = viewBucket(servers.s3, name);
    site = await makeSite(peers);
    const { repository } = settingsOf(peers, (label) => site.diskFile(label));
    const immutability = { days: 1, mode: 'compliance' };
    await site.configure({ repository: { ...Object(repository), immutability } });
    await expectOk('init', '--kit', join(site.folder, 'kit'));
    await expectOk('seed');
    await changeDisk(site, 'data', 1);
    await expectOk('sync');
  });
  afterAll(async () => {
    bucket?.[Symbol.dispose]();
    await site?.[Symbol.asyncDispose]();
    await servers?.[Symbol.asyncDispose]();
  });

  async function expectOk(...args: string[]): Promise<string> {
    const { exitCode, stdout, stderr } = await site.failkit(...args);
    expect(exitCode, stderr).toBe(0);
    return stdout;
  }

  async function versions(): Promise<{ readonly stored: ObjectVersion[]; readonly markers: ObjectVersion[] }> {
    const { Versions = [], DeleteMarkers = [] } = await bucket.client.send(
      new ListObjectVersionsCommand({ Bucket: peers.bucket }),
    );
    return { stored: Versions, markers: DeleteMarkers };
  }

  const remove = (Key: string, VersionId?: string) =>
    bucket.client.send(new DeleteObjectCommand({ Bucket: peers.bucket, Key, ...(VersionId && { VersionId }) }));

  it('keeps every version of every object from deletion, until the day that points tells', async () => {
    const { machines } = JSON.parse(await expectOk('points', '--json'));
    const until = Date.parse(machines[0].immutableUntil);
    expect(until - Date.now()).toBeGreaterThan(10 * 24 * 3_600_000);
    expect(await expectOk('points')).toMatch(/immutable until \d{4}-\d\d-\d\d/);
    const { stored } = await versions();
    expect(stored.length).toBeGreaterThan(10);
    const deleted: string[] = [];
    for (const { Key = '', VersionId } of stored)
      await remove(Key, VersionId).then(
        () => deleted.push(Key),
        () => undefined,
      );
    expect(deleted).toEqual([]);
  });

  it('is whole again once the marks of somebody who deleted everything are removed', async () => {
    for (const key of await bucket.keys()) await remove(key);
    expect(await bucket.keys()).toEqual([]);
    expect((await site.failkit('points')).exitCode).not.toBe(0);
    for (const { Key = '', VersionId } of (await versions()).markers) await remove(Key, VersionId);
    const to = join(site.folder, 'out');
    await expectOk('restore', machineName, '--to', to);
    expect(await sha256OfRestored(to)).toEqual(await sha256OfDisks(site));
  });

  it('is looked at by the doctor, which warns of a default retention', async () => {
    expect(await expectOk('doctor')).toMatch(/object lock +the bucket has object lock, and no rule/);
    const rule = (days: number | null) =>
      bucket.client.send(
        new PutObjectLockConfigurationCommand({
          Bucket: peers.bucket,
          ObjectLockConfiguration: {
            ObjectLockEnabled: 'Enabled',
            ...(days !== null && { Rule: { DefaultRetention: { Mode: 'GOVERNANCE', Days: days } } }),
          },
        }),
      );
    await rule(1);
    expect((await site.failkit('doctor')).stdout).toMatch(/object lock +the bucket has a default retention/);
    await rule(null);
  });

  it('lets readers remove their pins', async () => {
    await expectOk('pin', 'add', machineName, '--for', '1d');
    expect(await expectOk('pin', 'list', machineName)).toMatch(/point/);
    const { machines } = JSON.parse(await expectOk('points', '--json'));
    await expectOk('pin', 'remove', machineName, String(machines[0].points.at(-1).point));
  });

  it('is an error, before anything is written, where the bucket has none', async () => {
    const { peers: plain, bucket: other } = await servers.place();
    using _view = other;
    await using elsewhere = await makeSite(plain);
    const { repository } = settingsOf(plain, (label) => elsewhere.diskFile(label));
    await elsewhere.configure({ repository: { ...Object(repository), immutability: { days: 1, mode: 'governance' } } });
    const { exitCode, stderr } = await elsewhere.failkit('init', '--kit', join(elsewhere.folder, 'kit'));
    expect(exitCode).toBe(4);
    expect(stderr).toMatch(/object lock enabled/);
    expect(await other.keys()).toEqual([]);
    const examined = await elsewhere.failkit('doctor');
    expect(examined.stdout).toMatch(/object lock +.*has no object lock, and repository.immutability asks for it/);
  });
});
