import { join } from 'node:path';
import { DeleteObjectCommand, GetObjectCommand, S3Client } from '@aws-sdk/client-s3';
import { fromTemporaryCredentials } from '@aws-sdk/credential-providers';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Secret } from '../../crypto/redacted.ts';
import type { BucketView } from './bucket.ts';
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

/** The service's own rights: wrap but not unwrap, put but not delete. Both servers enforce them. */

const needs = await endToEndNeeds();

interface Refusal {
  readonly error: { readonly code: string; readonly message: string };
}

describe.skipIf(needs !== null)(needs ?? 'a service that may neither decrypt nor delete', () => {
  let servers: EndToEndPeers;
  let peers: SitePeers;
  let bucket: BucketView;
  /** The operator's host, with every right. */
  let office: Site;
  let service: Site;
  beforeAll(async () => {
    servers = await startPeers({ enforceIam: true });
    ({ peers, bucket } = await servers.place());
    office = await makeSite(peers);
    service = await makeSite(peers, { disksOf: office });
    const keys = await userWith(servers, peers.keyId, ['kms:GenerateDataKey', 'kms:Encrypt']);
    service.environment.KMS_ACCESS_KEY = keys.accessKeyId;
    service.environment.KMS_SECRET = keys.secretAccessKey.reveal();
    const store = await sessionWithoutDelete(peers, servers.s3.endpoint);
    service.environment.S3_ACCESS_KEY = store.accessKeyId;
    service.environment.S3_SECRET = store.secretAccessKey;
    service.environment.S3_TOKEN = store.sessionToken ?? '';
    await service.configure({ ...writeOnlySettings(peers, office), access: 'write-only' });
  });
  afterAll(async () => {
    bucket?.[Symbol.dispose]();
    await service?.[Symbol.asyncDispose]();
    await office?.[Symbol.asyncDispose]();
    await servers?.[Symbol.asyncDispose]();
  });

  it('makes the repository and publishes point after point', async () => {
    const made = await service.failkit('init', '--kit', join(service.folder, 'kit'));
    expect(made.exitCode, made.stderr).toBe(0);
    const seeded = await service.failkit('seed', '--json');
    expect(seeded.exitCode, seeded.stderr).toBe(0);
    for (const round of [1, 2]) {
      await changeDisk(office, 'data', round);
      const synced = await service.failkit('sync', '--json');
      expect(synced.exitCode, synced.stderr).toBe(0);
      const [machine] = synced.json<{ machines: { changedBytes: number; disks: { fullReadReason: string }[] }[] }>()
        .machines;
      // The sealed head map of this host stands in for the pages that it may not decrypt.
      expect(machine?.changedBytes).toBe(12 * 64 * 1024);
    }
  });

  it('is refused by the KMS when it tries to restore, and says so', async () => {
    const to = join(service.folder, 'out');
    const refused = await service.failkit('restore', machineName, '--to', to, '--json');
    expect(refused.exitCode).toBe(5);
    const { error } = refused.json<Refusal>();
    expect(error.code).toBe('KEY_REFUSED');
    expect(error.message).toContain('Decrypt');
    const listed = await service.failkit('points');
    expect(listed.exitCode, listed.stderr).toBe(0);
    expect(listed.stdout.match(/may not be opened from here/g)?.length).toBe(3);
  });

  it('can be stolen without an object being lost', async () => {
    const client = new S3Client({
      endpoint: servers.s3.endpoint,
      region: peers.s3.region,
      forcePathStyle: true,
      credentials: {
        accessKeyId: service.environment.S3_ACCESS_KEY ?? '',
        secretAccessKey: service.environment.S3_SECRET ?? '',
        sessionToken: service.environment.S3_TOKEN ?? '',
      },
    });
    const [Key = ''] = await bucket.keys();
    const at = { Bucket: peers.bucket, Key };
    await expect(client.send(new GetObjectCommand(at))).resolves.toBeDefined();
    await expect(client.send(new DeleteObjectCommand(at))).rejects.toThrow(/Access Denied/);
    client.destroy();
  });

  it('is restored by a host that may decrypt', async () => {
    const fingerprint = (await service.failkit('root', 'show', '--json')).json<{ rootFingerprint: string }>();
    await office.configure({ rootFingerprint: fingerprint.rootFingerprint });
    const to = join(office.folder, 'out');
    const restored = await office.failkit('restore', machineName, '--to', to);
    expect(restored.exitCode, restored.stderr).toBe(0);
    expect(await sha256OfRestored(to)).toEqual(await sha256OfDisks(office));
  });
});

function writeOnlySettings(peers: SitePeers, disks: Site): Record<string, unknown> {
  const { repository } = settingsOf(peers, disks.diskFile) as { repository: { credentials: object } };
  return {
    repository: { ...repository, credentials: { ...repository.credentials, sessionToken: `\${env:S3_TOKEN}` } },
  };
}

/** A user of the KMS server's own IAM, with these rights on one key. */
async function userWith({ kms }: EndToEndPeers, keyArn: string, actions: readonly string[]) {
  const allow = { Effect: 'Allow', Action: actions, Resource: keyArn };
  const PolicyDocument = JSON.stringify({ Version: '2012-10-17', Statement: [allow] });
  await kms.iam('CreateUser', { UserName: 'service' });
  await kms.iam('PutUserPolicy', { UserName: 'service', PolicyName: 'p', PolicyDocument });
  const xml = await kms.iam('CreateAccessKey', { UserName: 'service' });
  const field = (tag: string) => new RegExp(`<${tag}>([^<]+)<`).exec(xml)?.[1] ?? '';
  return { accessKeyId: field('AccessKeyId'), secretAccessKey: new Secret(field('SecretAccessKey')) };
}

/** Credentials of the S3 server for a session whose policy knows no delete. */
async function sessionWithoutDelete({ s3, bucket }: SitePeers, endpoint: string) {
  const onBucket = { Effect: 'Allow', Action: ['s3:ListBucket'], Resource: `arn:aws:s3:::${bucket}` };
  const onObjects = {
    Effect: 'Allow',
    Action: ['s3:GetObject', 's3:PutObject', 's3:PutObjectRetention'],
    Resource: `arn:aws:s3:::${bucket}/*`,
  };
  return await fromTemporaryCredentials({
    masterCredentials: { accessKeyId: s3.accessKeyId, secretAccessKey: s3.secretAccessKey.reveal() },
    params: {
      RoleArn: 'arn:aws:iam::000000000000:role/service',
      RoleSessionName: 'service',
      Policy: JSON.stringify({ Version: '2012-10-17', Statement: [onBucket, onObjects] }),
    },
    clientConfig: { endpoint, region: s3.region },
  })();
}
