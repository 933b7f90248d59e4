import { constants, createPublicKey, publicEncrypt } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { azureKeyVault, type KeyVaultOptions } from '../../crypto/azure-key-vault.ts';
import { DataKey } from '../../crypto/data-key.ts';
import { keyProviderContract, sampleContext } from '../contract/key-provider.ts';
import { keyServiceContract } from '../contract/key-service.ts';
import { goodToken, type KeyVault, startKeyVault, strangersToken } from '../fakes/key-vault.ts';

/** Against a double of what Azure documents: no server that can be installed here plays Key Vault. */

const never = new AbortController().signal;
let vault: KeyVault;
beforeAll(async () => {
  vault = await startKeyVault();
});
afterAll(() => vault[Symbol.asyncDispose]());

const at = (keyId: string, more: Partial<KeyVaultOptions> = {}) =>
  azureKeyVault({ keyId, publicKeyPem: null, endpoint: null, token: async () => goodToken, httpsAgent: null, ...more });

const withPublicKey = (keyId: string, more: Partial<KeyVaultOptions> = {}) => {
  const newest = vault.newest(keyId);
  return at(newest.keyId, { publicKeyPem: newest.publicPem, ...more });
};

keyProviderContract({
  name: 'azure-key-vault (stub of the documented answers)',
  alteredBytesMax: 12,
  open: async () => ({ one: at(vault.createKey()), other: at(vault.createKey()) }),
});

keyProviderContract({
  name: 'azure-key-vault, wrapping with the public key (stub of the documented answers)',
  alteredBytesMax: 12,
  open: async () => ({ one: withPublicKey(vault.createKey()), other: withPublicKey(vault.createKey()) }),
});

keyServiceContract({
  name: 'azure-key-vault (stub of the documented answers)',
  start: async () => ({
    newKey: async () => vault.createKey(),
    open: async (keyId, other) => at(keyId, other),
    openDenied: async (keyId) => at(keyId, { token: async () => strangersToken }),
    rotate: async (keyId) => vault.rotate(keyId),
    disable: async (keyId) => vault.setState(keyId, 'disabled'),
    enable: async (keyId) => vault.setState(keyId, 'enabled'),
    [Symbol.asyncDispose]: async () => undefined,
  }),
  says: {
    throttled: { status: 429, body: { error: { code: 'Throttled', message: 'too many' } } },
    broken: { status: 503, body: { error: { code: 'ServiceUnavailable', message: 'later' } } },
    clockSkewed: {
      status: 401,
      headers: { date: new Date(Date.now() - 3_600_000).toUTCString() },
      body: { error: { code: 'Unauthorized', message: 'AKV10022: token expired' } },
    },
    keyMissing: { status: 404, body: { error: { code: 'KeyNotFound', message: 'not found' } } },
  },
  keysCanBe: ['disabled'],
});

describe('Azure Key Vault (stub of the documented answers)', () => {
  it('is never asked to wrap where the public key is here, not even for a token', async () => {
    const keyId = vault.createKey();
    const before = vault.requests;
    const agent = withPublicKey(keyId, { token: () => Promise.reject(new Error('this host has no identity')) });
    const { key, wrapped } = await agent.generateDataKey(sampleContext, never);
    using first = key;
    expect(vault.requests).toBe(before);
    await expect(agent.unwrap(wrapped, sampleContext, never)).rejects.toMatchObject({ code: 'KEY_DENIED' });
    using again = await at(keyId).unwrap(wrapped, sampleContext, never);
    expect(Buffer.from(again.bytes).equals(first.bytes)).toBe(true);
  });

  it('opens by the version that the wrap names, and by no other key or vault', async () => {
    const keyId = vault.createKey();
    const old = withPublicKey(keyId);
    const wrapped = await old.wrap(DataKey.generate(), sampleContext, never);
    vault.rotate(keyId);
    expect((await at(keyId).wrap(DataKey.generate(), sampleContext, never)).keyId).toBe(vault.newest(keyId).keyId);
    (await at(keyId).unwrap(wrapped, sampleContext, never))[Symbol.dispose]();
    for (const named of [wrapped.keyId.replace('127.0.0.1', 'evil.example.net'), keyId, 'anything'])
      await expect(at(keyId).unwrap({ ...wrapped, keyId: named }, sampleContext, never)).rejects.toMatchObject({
        code: 'KEY_WRONG',
      });
  });

  it('says how to recover a key that was deleted', async () => {
    const keyId = vault.createKey();
    const wrapped = await at(keyId).wrap(DataKey.generate(), sampleContext, never);
    vault.setState(keyId, 'deleted');
    const asked = at(keyId).unwrap(wrapped, sampleContext, never);
    await expect(asked).rejects.toMatchObject({ code: 'KEY_NOT_FOUND' });
    await expect(asked).rejects.toThrow('az keyvault key recover');
  });

  it('refuses what was wrapped without its context', async () => {
    const { keyId, publicPem } = vault.newest(vault.createKey());
    const oaep = { padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: 'sha256' };
    const blob = publicEncrypt({ key: createPublicKey(publicPem), ...oaep }, Buffer.alloc(32, 1));
    const wrapped = { provider: 'azure-key-vault', keyId, blob: new Uint8Array(blob) };
    await expect(at(keyId).unwrap(wrapped, sampleContext, never)).rejects.toThrow('32 bytes, not 64');
  });

  it('takes no public key that is none, nor one without the version that it is of', () => {
    const keyId = vault.createKey();
    const { keyId: versioned, publicPem } = vault.newest(keyId);
    expect(() => at(keyId, { publicKeyPem: publicPem })).toThrow('names no version');
    expect(() => at(versioned, { publicKeyPem: 'nonsense' })).toThrow('is no PEM');
  });
});
