import { join } from 'node:path';
import { DeleteObjectCommand, PutObjectCommand, S3Client } from '@aws-sdk/client-s3';
import { fromTemporaryCredentials } from '@aws-sdk/credential-providers';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Secret } from '../../crypto/redacted.ts';
import type { BucketView } from '../end-to-end/bucket.ts';
import { type EndToEndPeers, endToEndNeeds, startPeers } from '../end-to-end/peers.ts';
import {
  changeDisk,
  machineName,
  makeSite,
  type Site,
  type SitePeers,
  settingsOf,
  sha256OfDisks,
  sha256OfRestored,
} from '../end-to-end/site.ts';
import { codeBlocks, textOf } from './documents.ts';

/**
 * docs/operations/aws-policies.md as it stands, with other names in it, on servers that enforce policies. They do not know
 * the conditions on the encryption context and on If-None-Match: the former is left out, the bucket's own policy not tried.
 */

const needs = await endToEndNeeds();
const [agentOnS3 = '', restorerOnS3 = '', agentOnKms = ''] = codeBlocks(
  await textOf('docs/operations/aws-policies.md'),
  'json',
);
const restorerOnKms = agentOnKms.replace('kms:GenerateDataKey', 'kms:Decrypt');

describe.skipIf(needs !== null)(needs ?? 'the policies in docs/operations/aws-policies.md', () => {
  let servers: EndToEndPeers;
  let peers: SitePeers;
  let bucket: BucketView;
  let agent: Site;
  let restorer: Site;
  beforeAll(async () => {
    servers = await startPeers({ enforceIam: true });
    ({ peers, bucket } = await servers.place());
    agent = await makeSite(peers);
    restorer = await makeSite(peers, { disksOf: agent });
    await admit(agent, 'agent', agentOnS3, agentOnKms);
    await admit(restorer, 'restorer', restorerOnS3, restorerOnKms);
    await agent.configure({ ...sessionSettings(), access: 'write-only' });
  });
  afterAll(async () => {
    bucket?.[Symbol.dispose]();
    await restorer?.[Symbol.asyncDispose]();
    await agent?.[Symbol.asyncDispose]();
    await servers?.[Symbol.asyncDispose]();
  });

  it('are enough for a write-only agent', async () => {
    for (const args of [['init', '--kit', join(agent.folder, 'kit')], ['seed'], ['sync']]) {
      const { exitCode, stderr } = await agent.failkit(...args);
      expect(exitCode, stderr).toBe(0);
      await changeDisk(agent, 'data', 1);
    }
    const { exitCode, stderr } = await agent.failkit('sync');
    expect(exitCode, stderr).toBe(0);
  });

  it('are enough for a restorer', async () => {
    const shown = (await agent.failkit('root', 'show', '--json')).json<{ rootFingerprint: string }>();
    await restorer.configure({ ...sessionSettings(), rootFingerprint: shown.rootFingerprint, machines: [] });
    const to = join(restorer.folder, 'out');
    const { exitCode, stderr } = await restorer.failkit('restore', machineName, '--to', to);
    expect(exitCode, stderr).toBe(0);
    expect(await sha256OfRestored(to)).toEqual(await sha256OfDisks(agent));
  });

  it('let an agent neither delete nor decrypt, and a restorer not write', async () => {
    const [Key = ''] = await bucket.keys();
    const at = { Bucket: peers.bucket, Key };
    const deleting = send(agent, (client) => client.send(new DeleteObjectCommand(at)));
    await expect(deleting).rejects.toThrow(/Access Denied/);
    const writing = send(restorer, (client) =>
      client.send(new PutObjectCommand({ ...at, Key: `${Key}-x`, Body: 'x' })),
    );
    await expect(writing).rejects.toThrow(/Access Denied/);
    const restored = await agent.failkit('restore', machineName, '--to', join(agent.folder, 'out'));
    expect(restored.exitCode).toBe(5);
  });

  async function admit(site: Site, name: string, s3Policy: string, kmsPolicy: string): Promise<void> {
    const store = await s3Session(s3Policy);
    site.environment.S3_ACCESS_KEY = store.accessKeyId;
    site.environment.S3_SECRET = store.secretAccessKey;
    site.environment.S3_TOKEN = store.sessionToken ?? '';
    const keys = await kmsUser(name, kmsPolicy);
    site.environment.KMS_ACCESS_KEY = keys.accessKeyId;
    site.environment.KMS_SECRET = keys.secretAccessKey.reveal();
  }

  async function s3Session(policy: string) {
    const { s3 } = servers;
    const Policy = policy
      .replaceAll('example-replicas/berlin', `${peers.bucket}/replicas/berlin`)
      .replaceAll('example-replicas', peers.bucket);
    return await fromTemporaryCredentials({
      masterCredentials: { accessKeyId: s3.accessKeyId, secretAccessKey: s3.secretAccessKey.reveal() },
      params: { RoleArn: 'arn:aws:iam::000000000000:role/x', RoleSessionName: 'x', Policy },
      clientConfig: { endpoint: s3.endpoint, region: s3.region },
    })();
  }

  async function kmsUser(UserName: string, policy: string) {
    const { kms } = servers;
    const PolicyDocument = policy.replace(/arn:aws:kms:[^"]+/, peers.keyId).replace(/,\s*"Condition": \{ .* \}/, '');
    expect(PolicyDocument).not.toContain('Condition');
    await kms.iam('CreateUser', { UserName });
    await kms.iam('PutUserPolicy', { UserName, PolicyName: 'p', PolicyDocument });
    const xml = await kms.iam('CreateAccessKey', { UserName });
    const field = (tag: string) => new RegExp(`<${tag}>([^<]+)<`).exec(xml)?.[1] ?? '';
    return { accessKeyId: field('AccessKeyId'), secretAccessKey: new Secret(field('SecretAccessKey')) };
  }

  function sessionSettings(): Record<string, unknown> {
    const { repository } = settingsOf(peers, agent.diskFile) as { repository: { credentials: object } };
    return {
      repository: { ...repository, credentials: { ...repository.credentials, sessionToken: `\${env:S3_TOKEN}` } },
    };
  }

  async function send<T>(site: Site, work: (client: S3Client) => Promise<T>): Promise<T> {
    const client = new S3Client({
      endpoint: servers.s3.endpoint,
      region: servers.s3.region,
      forcePathStyle: true,
      credentials: {
        accessKeyId: site.environment.S3_ACCESS_KEY ?? '',
        secretAccessKey: site.environment.S3_SECRET ?? '',
        sessionToken: site.environment.S3_TOKEN ?? '',
      },
    });
    try {
      return await work(client);
    } finally {
      client.destroy();
    }
  }
});
