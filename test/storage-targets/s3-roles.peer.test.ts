import { createHash, randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { openS3Target } from '../../storage-targets/s3.ts';
import type { S3Options } from '../../storage-targets/s3-bucket.ts';
import type { StorageTarget } from '../../storage-targets/storage-target.ts';
import { motoNeeds, type S3Peer, s3Options, startMoto } from '../peers/s3.ts';
import { freePort } from '../peers/server-process.ts';

const never = new AbortController().signal;
const account = '123456789012';
const anyone = { Version: '2012-10-17', Statement: [{ Effect: 'Allow', Action: '*', Resource: '*' }] };
const mayOnlyAssume = {
  Version: '2012-10-17',
  Statement: [{ Effect: 'Allow', Action: 'sts:AssumeRole', Resource: '*' }],
};
const trust = {
  Version: '2012-10-17',
  Statement: [{ Effect: 'Allow', Principal: { AWS: '*' }, Action: 'sts:AssumeRole' }],
};

/** One call of the IAM query API; the server looks at no signature as long as it does not enforce IAM. */
async function iam(peer: S3Peer, action: string, parameters: Readonly<Record<string, string>>): Promise<string> {
  const response = await fetch(peer.endpoint, {
    method: 'POST',
    headers: {
      authorization:
        'AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/iam/aws4_request, SignedHeaders=host, Signature=0',
    },
    body: new URLSearchParams({ Action: action, Version: '2010-05-08', ...parameters }),
  });
  const xml = await response.text();
  if (!response.ok) throw new Error(`IAM ${action} failed: ${xml}`);
  return xml;
}

/** From then on the server checks signatures and policies of every request. */
async function enforceIam(peer: S3Peer): Promise<void> {
  const response = await fetch(`${peer.endpoint}/moto-api/reset-auth`, { method: 'POST', body: '0' });
  if (!response.ok) throw new Error(`the server does not enforce IAM: ${await response.text()}`);
}

async function putAndRead(target: StorageTarget): Promise<void> {
  const bytes = new Uint8Array(randomBytes(100));
  const sha256 = new Uint8Array(createHash('sha256').update(bytes).digest());
  await target.putIfAbsent('role/object', bytes, { sha256 }, never);
  expect(await target.get('role/object', null, never)).toEqual(bytes);
}

async function failure(options: S3Options): Promise<string> {
  await using target = await openS3Target(options);
  return await target.get('role/x', null, never).then(
    () => 'resolved',
    (error: Error & { code?: string }) => error.code ?? error.message,
  );
}

const needs = await motoNeeds();

describe.skipIf(needs !== null)(needs ?? 'roles', () => {
  let peer: S3Peer;
  let own: NonNullable<S3Options['credentials']>;
  let folder: string;
  const roleArn = `arn:aws:iam::${account}:role/replicator`;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'failkit-roles-'));
    peer = await startMoto();
  });
  afterAll(async () => {
    await peer?.stop();
    await rm(folder, { recursive: true, force: true });
  });

  it('a web identity is exchanged for a role; without its token file it is AccessDenied', async () => {
    const tokenFile = join(folder, 'token');
    await writeFile(tokenFile, 'a.web.token');
    const bucket = await peer.createBucket();
    const options = { ...s3Options(peer, bucket), stsEndpoint: peer.endpoint };
    const credentials = { kind: 'web-identity', roleArn, tokenFile } as const;
    await using target = await openS3Target({ ...options, credentials });
    await putAndRead(target);

    expect(await failure({ ...options, credentials: { ...credentials, tokenFile: join(folder, 'missing') } })).toBe(
      'ACCESS_DENIED',
    );
    const nowhere = `http://127.0.0.1:${await freePort()}`;
    expect(await failure({ ...options, credentials, stsEndpoint: nowhere })).toBe('STORE_UNAVAILABLE');
  });

  it('a profile of the shared files is found by its name', async () => {
    const credentialsFile = join(folder, 'credentials');
    await writeFile(credentialsFile, '[replicator]\naws_access_key_id = one\naws_secret_access_key = two\n');
    vi.stubEnv('AWS_SHARED_CREDENTIALS_FILE', credentialsFile);
    vi.stubEnv('AWS_CONFIG_FILE', join(folder, 'config'));
    const options = s3Options(peer, await peer.createBucket());
    await using target = await openS3Target({ ...options, credentials: { kind: 'profile', profile: 'replicator' } });
    await putAndRead(target);
    expect(await failure({ ...options, credentials: { kind: 'profile', profile: 'nobody' } })).toBe('ACCESS_DENIED');
    vi.unstubAllEnvs();
  });

  it('what a user may not do, the role that it assumes may', async () => {
    const bucket = await peer.createBucket();
    await iam(peer, 'CreateUser', { UserName: 'site' });
    await iam(peer, 'PutUserPolicy', {
      UserName: 'site',
      PolicyName: 'p',
      PolicyDocument: JSON.stringify(mayOnlyAssume),
    });
    await iam(peer, 'CreateRole', { RoleName: 'replicator', AssumeRolePolicyDocument: JSON.stringify(trust) });
    await iam(peer, 'PutRolePolicy', {
      RoleName: 'replicator',
      PolicyName: 'p',
      PolicyDocument: JSON.stringify(anyone),
    });
    const key = await iam(peer, 'CreateAccessKey', { UserName: 'site' });
    const accessKeyId = /<AccessKeyId>(.+)<\/AccessKeyId>/.exec(key)?.[1] ?? '';
    const secret = /<SecretAccessKey>(.+)<\/SecretAccessKey>/.exec(key)?.[1] ?? '';
    own = { kind: 'static', accessKeyId, secretAccessKey: { reveal: () => secret } };
    await enforceIam(peer);

    const options = { ...s3Options(peer, bucket), credentials: own, stsEndpoint: peer.endpoint };
    expect(await failure(options)).toBe('ACCESS_DENIED');
    await using target = await openS3Target({ ...options, assumeRole: { roleArn, externalId: 'customer-1' } });
    await putAndRead(target);
    const wrong = { ...options, credentials: { ...own, secretAccessKey: { reveal: () => 'wrong' } } };
    expect(await failure({ ...wrong, assumeRole: { roleArn } })).toBe('ACCESS_DENIED');
  });
});
