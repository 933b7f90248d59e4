import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DataKey } from '../../crypto/data-key.ts';
import { encodeKeyContext } from '../../crypto/key-context.ts';
import { Secret } from '../../crypto/redacted.ts';
import { type VaultTransitOptions, vaultTransit } from '../../crypto/vault-transit.ts';
import { keyProviderContract, sampleContext } from '../contract/key-provider.ts';
import { keyServiceContract } from '../contract/key-service.ts';
import { startVault, type VaultPeer, vaultNeeds } from '../peers/vault.ts';

const needs = await vaultNeeds();
const suite = needs === null ? 'Vault transit' : `Vault transit, ${needs}`;
const never = new AbortController().signal;

const at = (vault: VaultPeer, key: string, more: Partial<VaultTransitOptions> = {}) =>
  vaultTransit({
    address: vault.address,
    mount: 'transit',
    key,
    namespace: null,
    login: { kind: 'token', token: new Secret(vault.rootToken) },
    httpsAgent: null,
    ...more,
  });

/** An AppRole with the policies that docs/operations/vault.md gives a full agent. */
async function appRole(vault: VaultPeer, key: string) {
  const path = (operation: string) => `path "transit/${operation}/${key}" { capabilities = ["update"] }`;
  await vault.ask('PUT', 'sys/policies/acl/agent', { policy: `${path('encrypt')}\n${path('decrypt')}` });
  await vault.ask('POST', 'auth/approle/role/agent', { token_policies: ['agent'], token_ttl: '1h' });
  const role = await vault.ask('GET', 'auth/approle/role/agent/role-id');
  const secret = await vault.ask('POST', 'auth/approle/role/agent/secret-id');
  const roleId = role.data.role_id ?? '';
  const secretId = new Secret(secret.data.secret_id ?? '');
  return { kind: 'app-role', mount: 'approle', roleId, secretId } as const;
}

/** How many logins of AppRoles are in force. */
async function tokensOf(vault: VaultPeer): Promise<number> {
  const { data } = await vault.ask('LIST', 'sys/leases/lookup/auth/approle/login');
  return data.keys.length;
}

describe.skipIf(needs !== null)(suite, () => {
  let vault: VaultPeer;
  beforeAll(async () => {
    vault = await startVault();
  }, 120_000);
  afterAll(() => vault?.stop());

  keyProviderContract({
    name: 'vault-transit',
    alteredBytesMax: 40,
    open: async () => ({ one: at(vault, await vault.createKey()), other: at(vault, await vault.createKey()) }),
  });

  keyServiceContract({
    name: 'vault-transit',
    start: async () => ({
      newKey: () => vault.createKey(),
      open: async (key, other) =>
        at(vault, key, {
          ...(other && { address: other.endpoint }),
          ...(other?.timeoutMs && { timeoutMs: other.timeoutMs }),
        }),
      openDenied: async (key) => {
        const token = await vault.tokenFor('path "transit/encrypt/another" { capabilities = ["update"] }');
        return at(vault, key, { login: { kind: 'token', token: new Secret(token) } });
      },
      rotate: async (key) => void (await vault.ask('POST', `transit/keys/${key}/rotate`)),
      [Symbol.asyncDispose]: async () => undefined,
    }),
    says: {
      throttled: { status: 429, body: { errors: ['request path "transit/decrypt/k": rate limit quota exceeded'] } },
      broken: { status: 503, body: { errors: ['Vault is sealed'] } },
      keyMissing: { status: 404, body: { errors: [] } },
    },
    keysCanBe: [],
  });

  it('knows no key that was deleted, and no mount that is not there', async () => {
    const key = await vault.createKey();
    const { key: data, wrapped } = await at(vault, key).generateDataKey(sampleContext, never);
    data[Symbol.dispose]();
    await vault.ask('POST', `transit/keys/${key}/config`, { deletion_allowed: true });
    await vault.ask('DELETE', `transit/keys/${key}`);
    await expect(at(vault, key).unwrap(wrapped, sampleContext, never)).rejects.toThrow(
      /Vault refused decrypt.*HTTP 400/,
    );
    const elsewhere = at(vault, key, { mount: 'no/such' }).unwrap(wrapped, sampleContext, never);
    await expect(elsewhere).rejects.toMatchObject({ code: 'KEY_NOT_FOUND' });
  });

  it('refuses a wrap whose version of the key is no longer allowed', async () => {
    const key = await vault.createKey();
    const { key: data, wrapped } = await at(vault, key).generateDataKey(sampleContext, never);
    data[Symbol.dispose]();
    await vault.ask('POST', `transit/keys/${key}/rotate`);
    await vault.ask('POST', `transit/keys/${key}/config`, { min_decryption_version: 2 });
    await expect(at(vault, key).unwrap(wrapped, sampleContext, never)).rejects.toThrow(/min_decryption_version/);
  });

  it('takes no key that binds no context, such as one of RSA', async () => {
    await vault.ask('POST', 'transit/keys/rsa', { type: 'rsa-3072' });
    await expect(at(vault, 'rsa').wrap(DataKey.generate(), sampleContext, never)).rejects.toThrow(/AEAD type/);
  });

  it('refuses a wrap that Vault made of a bare key, without the context in it', async () => {
    const key = await vault.createKey();
    const made = await vault.ask('POST', `transit/encrypt/${key}`, {
      plaintext: Buffer.alloc(32, 1).toString('base64'),
      associated_data: Buffer.from(encodeKeyContext(sampleContext)).toString('base64'),
    });
    const { ciphertext = '' } = made.data;
    const wrapped = { provider: 'vault-transit', keyId: key, blob: Buffer.from(ciphertext) };
    await expect(at(vault, key).unwrap(wrapped, sampleContext, never)).rejects.toThrow(/32 bytes, not 64/);
  });

  it('logs in as an AppRole once, and again when its token was revoked', async () => {
    const key = await vault.createKey();
    const provider = at(vault, key, { login: await appRole(vault, key) });
    const { key: data, wrapped } = await provider.generateDataKey(sampleContext, never);
    data[Symbol.dispose]();
    (await provider.unwrap(wrapped, sampleContext, never))[Symbol.dispose]();
    expect(await tokensOf(vault)).toBe(1);
    await vault.ask('POST', 'sys/leases/revoke-prefix/auth/approle/login');
    (await provider.unwrap(wrapped, sampleContext, never))[Symbol.dispose]();
    expect(await tokensOf(vault)).toBe(1);
  });

  it('names an AppRole whose secret id is not the right one', async () => {
    const secretId = new Secret('00000000-0000-4000-8000-000000000000');
    const login = { kind: 'app-role', mount: 'approle', roleId: 'nobody', secretId } as const;
    const asked = at(vault, 'k', { login }).wrap(DataKey.generate(), sampleContext, never);
    await expect(asked).rejects.toMatchObject({ code: 'KEY_DENIED' });
    await expect(asked).rejects.toThrow(/check roleId and secretId/);
  });

  it('reads the token of a Vault agent for each request', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'failkit-vault-token-'));
    try {
      const file = join(folder, 'token');
      const provider = at(vault, await vault.createKey(), { login: { kind: 'token-file', file } });
      await expect(provider.wrap(DataKey.generate(), sampleContext, never)).rejects.toMatchObject({
        code: 'KEY_DENIED',
      });
      writeFileSync(file, `${vault.rootToken}\n`);
      (await provider.generateDataKey(sampleContext, never)).key[Symbol.dispose]();
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
