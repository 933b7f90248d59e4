import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DataKey } from '../../crypto/data-key.ts';
import { type GcpKmsOptions, gcpKms } from '../../crypto/gcp-kms.ts';
import { Secret } from '../../crypto/redacted.ts';
import { gcsAuthorization } from '../../storage-targets/gcs-connection.ts';
import { closeAgents, httpAgents } from '../../storage-targets/http-agents.ts';
import { keyProviderContract, sampleContext } from '../contract/key-provider.ts';
import { keyServiceContract } from '../contract/key-service.ts';
import { type CloudKms, startCloudKms } from '../fakes/cloud-kms.ts';

/** Against a double of what Google documents: no server here plays Cloud KMS with its checksums and contexts. */

const never = new AbortController().signal;
const agents = await httpAgents({});
let kms: CloudKms;
let owner: string;
beforeAll(async () => {
  kms = await startCloudKms();
  owner = kms.serviceAccount('encrypt', 'decrypt');
});
afterAll(async () => {
  closeAgents(agents);
  await kms[Symbol.asyncDispose]();
});

function at(key: string, account = owner, more: Partial<GcpKmsOptions> = {}) {
  const credentials = { kind: 'service-account', key: new Secret(account) } as const;
  const authorization = gcsAuthorization({ credentials }, agents, 'https://www.googleapis.com/auth/cloudkms');
  return gcpKms({ key, endpoint: kms.endpoint, authorization, httpsAgent: null, ...more });
}

keyProviderContract({
  name: 'gcp-kms (stub of the documented answers)',
  alteredBytesMax: 40,
  open: async () => ({ one: at(kms.createKey()), other: at(kms.createKey()) }),
});

keyServiceContract({
  name: 'gcp-kms (stub of the documented answers)',
  start: async () => ({
    newKey: async () => kms.createKey(),
    open: async (key, other) => at(key, owner, other),
    openDenied: async (key) => at(key, kms.serviceAccount()),
    rotate: async (key) => kms.rotate(key),
    disable: async (key) => kms.setState(key, 'DISABLED'),
    enable: async (key) => kms.setState(key, 'ENABLED'),
    scheduleDeletion: async (key) => kms.setState(key, 'DESTROY_SCHEDULED'),
    [Symbol.asyncDispose]: async () => undefined,
  }),
  says: {
    throttled: { status: 429, body: { error: { code: 429, status: 'RESOURCE_EXHAUSTED', message: 'Quota exceeded' } } },
    broken: { status: 503, body: { error: { code: 503, status: 'UNAVAILABLE', message: 'try later' } } },
    clockSkewed: {
      status: 401,
      headers: { date: new Date(Date.now() - 3_600_000).toUTCString() },
      body: { error: { code: 401, status: 'UNAUTHENTICATED', message: 'invalid authentication credentials' } },
    },
    keyMissing: { status: 404, body: { error: { code: 404, status: 'NOT_FOUND', message: 'not found' } } },
  },
  keysCanBe: ['disabled', 'pending deletion'],
});

describe('Google Cloud KMS (stub of the documented answers)', () => {
  it('lets a write-only service wrap, and refuses to let it unwrap', async () => {
    const service = at(kms.createKey(), kms.serviceAccount('encrypt'));
    const { key, wrapped } = await service.generateDataKey(sampleContext, never);
    key[Symbol.dispose]();
    await expect(service.unwrap(wrapped, sampleContext, never)).rejects.toMatchObject({ code: 'KEY_DENIED' });
  });

  it.each([
    ['a wrap', 'encrypt', (body: Record<string, unknown>) => Object.assign(body, { ciphertext: 'AAAA' })],
    [
      'the checksum of a wrap',
      'encrypt',
      (body: Record<string, unknown>) => Object.assign(body, { ciphertextCrc32c: '1' }),
    ],
    ['that a plaintext was checked', 'encrypt', (body: Record<string, unknown>) => delete body.verifiedPlaintextCrc32c],
    ['a data key', 'decrypt', (body: Record<string, unknown>) => Object.assign(body, { plaintext: 'AAAA' })],
    ['the checksum of a data key', 'decrypt', (body: Record<string, unknown>) => delete body.plaintextCrc32c],
  ])('believes no answer in which %s was altered or lost on its way', async (_, operation, change) => {
    const service = at(kms.createKey());
    const wrapped = await service.wrap(DataKey.generate(), sampleContext, never);
    kms.tamper = (body) => void change(body);
    const asked =
      operation === 'encrypt'
        ? service.wrap(DataKey.generate(), sampleContext, never)
        : service.unwrap(wrapped, sampleContext, never);
    await expect(asked).rejects.toMatchObject({ code: 'KEY_SERVICE_UNAVAILABLE' });
    kms.tamper = null;
  });

  it('names a key file that is none, and a token that nobody gives', async () => {
    const nothing = at(kms.createKey(), owner, { authorization: () => Promise.reject(new Error('no credentials')) });
    const asked = nothing.wrap(DataKey.generate(), sampleContext, never);
    await expect(asked).rejects.toMatchObject({ code: 'KEY_DENIED' });
    const away = Object.assign(new Error('connect'), { code: 'ECONNREFUSED' });
    const later = at(kms.createKey(), owner, { authorization: () => Promise.reject(away) });
    await expect(later.wrap(DataKey.generate(), sampleContext, never)).rejects.toMatchObject({
      code: 'KEY_SERVICE_UNAVAILABLE',
    });
    const hanging = at(kms.createKey(), owner, { authorization: () => new Promise(() => undefined), timeoutMs: 50 });
    await expect(hanging.wrap(DataKey.generate(), sampleContext, never)).rejects.toThrow('no token');
  });
});
