import {
  CancelKeyDeletionCommand,
  CreateAliasCommand,
  CreateKeyCommand,
  DisableKeyCommand,
  EnableKeyCommand,
  EncryptCommand,
  RotateKeyOnDemandCommand,
  ScheduleKeyDeletionCommand,
} from '@aws-sdk/client-kms';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type AwsKmsOptions, awsKms } from '../../crypto/aws-kms.ts';
import { DataKey } from '../../crypto/data-key.ts';
import { KeyRefused, KeyServiceUnavailable } from '../../crypto/errors.ts';
import { awsEncryptionContext } from '../../crypto/key-context.ts';
import { Secret } from '../../crypto/redacted.ts';
import { keyProviderContract, sampleContext } from '../contract/key-provider.ts';
import { keyServiceContract } from '../contract/key-service.ts';
import { type KmsPeer, kmsNeeds, startKms } from '../peers/kms.ts';

const needs = await kmsNeeds();
const suite = needs === null ? 'AWS KMS' : `AWS KMS, ${needs}`;
const never = new AbortController().signal;
let shared: KmsPeer;
/** IAM knows nobody of that name. */
const strangers = { accessKeyId: 'AKIASTRANGER', secretAccessKey: new Secret('stranger') };

const kmsAt = (peer: KmsPeer, keyId: string, more: Partial<AwsKmsOptions> = {}) =>
  awsKms({ keyId, region: peer.region, endpoint: peer.endpoint, credentials: peer.credentials, ...more });

async function wrapUnder(peer: KmsPeer, keyId: string) {
  const { key, wrapped } = await kmsAt(peer, keyId).generateDataKey(sampleContext, never);
  return { key, wrapped };
}

async function refusal(doing: Promise<unknown>): Promise<string> {
  const error = await doing.then(
    () => null,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(KeyRefused);
  return (error as KeyRefused).message;
}

describe.skipIf(needs !== null)(suite, () => {
  beforeAll(async () => {
    shared = await startKms();
  });
  afterAll(() => shared?.stop());

  keyProviderContract({
    name: 'aws-kms',
    alteredBytesMax: 40,
    open: async () => ({
      one: kmsAt(shared, await shared.createKey()),
      other: kmsAt(shared, await shared.createKey()),
    }),
  });

  keyServiceContract({
    name: 'aws-kms',
    start: async () => {
      const denying = await startKms({ enforceIam: true });
      return {
        newKey: () => shared.createKey(),
        open: async (key, other) => kmsAt(shared, key, other ?? {}),
        openDenied: async (key) => kmsAt(denying, key, { credentials: strangers }),
        rotate: async (KeyId) => void (await shared.admin.send(new RotateKeyOnDemandCommand({ KeyId }))),
        disable: async (KeyId) => void (await shared.admin.send(new DisableKeyCommand({ KeyId }))),
        enable: async (KeyId) => void (await shared.admin.send(new EnableKeyCommand({ KeyId }))),
        scheduleDeletion: async (KeyId) =>
          void (await shared.admin.send(new ScheduleKeyDeletionCommand({ KeyId, PendingWindowInDays: 7 }))),
        [Symbol.asyncDispose]: () => denying.stop(),
      };
    },
    says: {
      throttled: { status: 400, body: { __type: 'ThrottlingException' } },
      broken: { status: 500, body: { __type: 'KMSInternalException' } },
      clockSkewed: {
        status: 400,
        headers: { date: new Date(Date.now() - 3_600_000).toUTCString() },
        body: { __type: 'InvalidSignatureException' },
      },
      keyMissing: { status: 400, body: { __type: 'NotFoundException' } },
    },
    keysCanBe: ['disabled', 'pending deletion'],
  });

  it('names the key ARN in its wraps, also when it was given a key id', async () => {
    const arn = await shared.createKey();
    const { key, wrapped } = await wrapUnder(shared, arn.split('/').at(-1) ?? '');
    key[Symbol.dispose]();
    expect(wrapped.keyId).toBe(arn);
  });

  it('refuses with a disabled key, and works again once it is enabled', async () => {
    const KeyId = await shared.createKey();
    const { key, wrapped } = await wrapUnder(shared, KeyId);
    using first = key;
    await shared.admin.send(new DisableKeyCommand({ KeyId }));
    const kms = kmsAt(shared, KeyId);
    for (const call of [
      () => kms.unwrap(wrapped, sampleContext, never),
      () => kms.wrap(first, sampleContext, never),
      () => kms.generateDataKey(sampleContext, never),
    ])
      expect(await refusal(call())).toMatch(/DisabledException.*the key is disabled: enable it/);
    await shared.admin.send(new EnableKeyCommand({ KeyId }));
    using again = await kms.unwrap(wrapped, sampleContext, never);
    expect(Buffer.from(again.bytes).equals(first.bytes)).toBe(true);
  });

  it('refuses with a key that is pending deletion, and says to cancel it', async () => {
    const KeyId = await shared.createKey();
    const { key, wrapped } = await wrapUnder(shared, KeyId);
    using first = key;
    await shared.admin.send(new ScheduleKeyDeletionCommand({ KeyId, PendingWindowInDays: 7 }));
    const kms = kmsAt(shared, KeyId);
    expect(await refusal(kms.unwrap(wrapped, sampleContext, never))).toMatch(
      /KMSInvalidStateException.*pending deletion/,
    );
    expect(await refusal(kms.generateDataKey(sampleContext, never))).toMatch(/pending deletion/);
    await shared.admin.send(new CancelKeyDeletionCommand({ KeyId }));
    await shared.admin.send(new EnableKeyCommand({ KeyId }));
    using again = await kms.unwrap(wrapped, sampleContext, never);
    expect(Buffer.from(again.bytes).equals(first.bytes)).toBe(true);
  });

  it('refuses with a key that does not exist, or lives in another region', async () => {
    const absent = (await shared.createKey()).replace(/[^/]+$/, '00000000-0000-4000-8000-000000000000');
    expect(await refusal(kmsAt(shared, absent).generateDataKey(sampleContext, never))).toMatch(
      /NotFoundException.*check key id and region/,
    );
    const bare = (await shared.createKey()).split('/').at(-1) ?? '';
    const elsewhere = kmsAt(shared, bare, { region: 'us-west-2' });
    expect(await refusal(elsewhere.generateDataKey(sampleContext, never))).toContain('NotFoundException');
  });

  it('refuses with a key that is not for encryption', async () => {
    const made = await shared.admin.send(new CreateKeyCommand({ KeyUsage: 'SIGN_VERIFY', KeySpec: 'ECC_NIST_P256' }));
    expect(await refusal(kmsAt(shared, made.KeyMetadata?.Arn ?? '').generateDataKey(sampleContext, never))).toContain(
      'InvalidKeyUsageException',
    );
  });

  it('unwraps after rotation what was wrapped before it', async () => {
    const KeyId = await shared.createKey();
    const { key, wrapped } = await wrapUnder(shared, KeyId);
    using first = key;
    await shared.admin.send(new RotateKeyOnDemandCommand({ KeyId }));
    const kms = kmsAt(shared, KeyId);
    using again = await kms.unwrap(wrapped, sampleContext, never);
    expect(Buffer.from(again.bytes).equals(first.bytes)).toBe(true);
    using after = await kms.unwrap(await kms.wrap(first, sampleContext, never), sampleContext, never);
    expect(Buffer.from(after.bytes).equals(first.bytes)).toBe(true);
  });

  it('wraps through an alias under the key ARN, and says what to configure when the alias now means another key', async () => {
    const [TargetKeyId, other] = [await shared.createKey(), await shared.createKey()];
    const AliasName = 'alias/failkit-moved';
    await shared.admin.send(new CreateAliasCommand({ AliasName, TargetKeyId }));
    const { key, wrapped } = await wrapUnder(shared, AliasName);
    using first = key;
    expect(wrapped.keyId).toBe(TargetKeyId);
    const byOther = kmsAt(shared, other).unwrap(wrapped, sampleContext, never);
    expect(await refusal(byOther)).toMatch(/IncorrectKeyException.*configure the key that the key record names/);
    using again = await kmsAt(shared, TargetKeyId).unwrap(wrapped, sampleContext, never);
    expect(Buffer.from(again.bytes).equals(first.bytes)).toBe(true);
  });

  it('refuses a plaintext that is no data key', async () => {
    const KeyId = await shared.createKey();
    const EncryptionContext = awsEncryptionContext(sampleContext);
    const short = await shared.admin.send(
      new EncryptCommand({ KeyId, EncryptionContext, Plaintext: new Uint8Array(31) }),
    );
    const wrapped = { provider: 'aws-kms', keyId: KeyId, blob: short.CiphertextBlob ?? new Uint8Array() };
    expect(await refusal(kmsAt(shared, KeyId).unwrap(wrapped, sampleContext, never))).toContain('31 bytes, not 32');
  });

  it('is bound to exactly the documented encryption context', async () => {
    const KeyId = await shared.createKey();
    using key = DataKey.generate();
    const EncryptionContext = {
      app: 'failkit',
      format: '1',
      repository: '11'.repeat(16),
      machine: '22'.repeat(16),
      epoch: '7',
    };
    const made = await shared.admin.send(
      new EncryptCommand({ KeyId, EncryptionContext, Plaintext: new Uint8Array(key.bytes) }),
    );
    const wrapped = { provider: 'aws-kms', keyId: KeyId, blob: made.CiphertextBlob ?? new Uint8Array() };
    using again = await kmsAt(shared, KeyId).unwrap(wrapped, sampleContext, never);
    expect(Buffer.from(again.bytes).equals(key.bytes)).toBe(true);
  });
});

describe.skipIf(needs !== null)(`${suite}, away`, () => {
  it('says that the service gave no answer once its server was killed', async () => {
    await using peer = await startKms();
    const KeyId = await peer.createKey();
    const { key, wrapped } = await wrapUnder(peer, KeyId);
    key[Symbol.dispose]();
    await peer.stop();
    const away = kmsAt(peer, KeyId).unwrap(wrapped, sampleContext, never);
    await expect(away).rejects.toBeInstanceOf(KeyServiceUnavailable);
    await expect(away).rejects.toThrow(/ECONNREFUSED/);
  });
});

describe.skipIf(needs !== null)(`${suite}, with IAM policies enforced`, () => {
  let peer: KmsPeer;
  let keyArn: string;
  beforeAll(async () => {
    peer = await startKms({ enforceIam: true });
    keyArn = await peer.createKey();
  });
  afterAll(() => peer?.stop());

  const policyFor = (actions: readonly string[]) =>
    JSON.stringify({ Version: '2012-10-17', Statement: [{ Effect: 'Allow', Action: actions, Resource: keyArn }] });

  async function userWith(name: string, actions: readonly string[]) {
    await peer.iam('CreateUser', { UserName: name });
    await peer.iam('PutUserPolicy', { UserName: name, PolicyName: 'p', PolicyDocument: policyFor(actions) });
    const xml = await peer.iam('CreateAccessKey', { UserName: name });
    const field = (tag: string) => new RegExp(`<${tag}>([^<]+)<`).exec(xml)?.[1] ?? '';
    return { accessKeyId: field('AccessKeyId'), secretAccessKey: new Secret(field('SecretAccessKey')) };
  }

  it('lets a write-only service wrap, and refuses to let it unwrap', async () => {
    const credentials = await userWith('writer', ['kms:GenerateDataKey', 'kms:Encrypt']);
    const writer = kmsAt(peer, keyArn, { credentials });
    const { key, wrapped } = await writer.generateDataKey(sampleContext, never);
    using first = key;
    await writer.wrap(first, sampleContext, never);
    const message = await refusal(writer.unwrap(wrapped, sampleContext, never));
    expect(message).toMatch(/AWS KMS refused Decrypt with key arn:aws:kms:.*AccessDenied/);
    const restorer = kmsAt(peer, keyArn, { credentials: await userWith('restorer', ['kms:Decrypt']) });
    using again = await restorer.unwrap(wrapped, sampleContext, never);
    expect(Buffer.from(again.bytes).equals(first.bytes)).toBe(true);
  });

  it('refuses credentials that nobody was given', async () => {
    const credentials = { accessKeyId: 'AKIAQQQQQQQQQQQQQQQQ', secretAccessKey: new Secret('nobody') };
    expect(await refusal(kmsAt(peer, keyArn, { credentials }).generateDataKey(sampleContext, never))).toContain(keyArn);
  });

  it('assumes a role, and says so when it may not', async () => {
    const trust = { Effect: 'Allow', Principal: { AWS: '*' }, Action: 'sts:AssumeRole' };
    const AssumeRolePolicyDocument = JSON.stringify({ Version: '2012-10-17', Statement: [trust] });
    const made = await peer.iam('CreateRole', { RoleName: 'agent', AssumeRolePolicyDocument });
    await peer.iam('PutRolePolicy', {
      RoleName: 'agent',
      PolicyName: 'p',
      PolicyDocument: policyFor(['kms:GenerateDataKey']),
    });
    const roleArn = /<Arn>([^<]+)</.exec(made)?.[1] ?? '';
    const assumed = kmsAt(peer, keyArn, { assumeRole: { roleArn, stsEndpoint: peer.endpoint } });
    const { key, wrapped } = await assumed.generateDataKey(sampleContext, never);
    key[Symbol.dispose]();
    expect(await refusal(assumed.unwrap(wrapped, sampleContext, never))).toContain('AccessDenied');
    const credentials = await userWith('outsider', ['kms:GenerateDataKey']);
    const outsider = kmsAt(peer, keyArn, { credentials, assumeRole: { roleArn, stsEndpoint: peer.endpoint } });
    expect(await refusal(outsider.generateDataKey(sampleContext, never))).toContain('AccessDenied');
  });
});
