import { readFile } from 'node:fs/promises';
import { Agent as HttpsAgent } from 'node:https';
import { getCACertificates } from 'node:tls';
import { KeyFileUnusable } from '../crypto/errors.ts';
import { readKeyFile } from '../crypto/key-file.ts';
import type { KeyProvider } from '../crypto/key-provider.ts';
import { openLocalKey } from '../crypto/local-key.ts';
import { recoveryKeyFromPem } from '../crypto/recovery-key.ts';
import type { Secret } from '../crypto/redacted.ts';
import type { VaultLogin } from '../crypto/vault-transit-session.ts';
import { withKeyRetry } from '../crypto/with-key-retry.ts';
import { closeAgents, httpAgents } from '../storage-targets/http-agents.ts';
import type { KeysConfig } from './config/config-schema.ts';

/** Opens who keeps the key encryption key. A key service's own code is loaded only where it is configured. */

/** The provider, and what closes it. */
export interface OpenKeyProvider extends Disposable {
  readonly provider: KeyProvider;
}

export async function openKeyProvider(keys: KeysConfig): Promise<OpenKeyProvider> {
  switch (keys.provider) {
    case 'local-key':
      return { provider: await openLocalKey(keys.file), [Symbol.dispose]: () => undefined };
    case 'recovery-key':
      return { provider: recoveryKeyFromPem(await readKeyFile(keys.file)), [Symbol.dispose]: () => undefined };
    case 'aws-kms':
      return await openAwsKms(keys);
    case 'azure-key-vault':
      return await openKeyVault(keys);
    case 'gcp-kms':
      return await openGcpKms(keys);
    case 'vault-transit':
      return await openVaultTransit(keys);
    case 'pkcs11':
      return await openPkcs11(keys);
  }
}

async function openAwsKms(keys: Extract<KeysConfig, { provider: 'aws-kms' }>): Promise<OpenKeyProvider> {
  const { awsKms } = await import('../crypto/aws-kms.ts');
  const { credentials: from, keyId, region, endpoint, caFile, proxy } = keys;
  const kms = awsKms({
    keyId,
    region,
    ...(endpoint && { endpoint }),
    ...((caFile ?? proxy) !== null && { httpsAgent: await privateAgent(caFile, proxy) }),
    ...(from.from === 'access-key' && {
      credentials: {
        accessKeyId: from.accessKeyId,
        secretAccessKey: from.secretAccessKey,
        ...(from.sessionToken && { sessionToken: from.sessionToken }),
      },
    }),
    ...((from.from === 'profile' || from.from === 'assume-role') && from.profile && { profile: from.profile }),
    ...(from.from === 'assume-role' && {
      assumeRole: { roleArn: from.roleArn, ...(from.externalId && { externalId: from.externalId }) },
    }),
  });
  return { provider: withKeyRetry(kms), [Symbol.dispose]: () => kms[Symbol.dispose]() };
}

/** learn.microsoft.com/azure/key-vault/general/authentication; a Managed HSM has an audience of its own. */
const keyVaultAudiences = {
  public: 'vault.azure.net',
  'us-government': 'vault.usgovcloudapi.net',
  china: 'vault.azure.cn',
} as const;

/** Credentials are looked for when the first token is needed: an agent that only wraps with a public key needs none. */
async function openKeyVault(keys: Extract<KeysConfig, { provider: 'azure-key-vault' }>): Promise<OpenKeyProvider> {
  const { azureKeyVault } = await import('../crypto/azure-key-vault.ts');
  const { keyId, publicKeyFile, cloud, endpoint, credentials } = keys;
  const agents = await agentsFor(keys);
  const publicKeyPem = publicKeyFile === null ? null : await readPublicKey(publicKeyFile);
  const isHsm = /\.managedhsm\.[^/]+\/keys\//.test(keyId);
  const scope = `https://${isHsm ? 'managedhsm.azure.net' : keyVaultAudiences[cloud]}/.default`;
  let identity: ReturnType<typeof import('../storage-targets/azure-blob-connection.ts')['azureIdentity']> | null = null;
  const token = async (abortSignal: AbortSignal): Promise<string> => {
    const { azureIdentity } = await import('../storage-targets/azure-blob-connection.ts');
    identity ??= azureIdentity({ cloud, clientId: credentials.clientId }, agents);
    return (await (await identity).getToken(scope, { abortSignal }))?.token ?? '';
  };
  const vault = azureKeyVault({ keyId, publicKeyPem, endpoint, token, httpsAgent: agents.httpsAgent });
  return { provider: withKeyRetry(vault), [Symbol.dispose]: () => closeAgents(agents) };
}

async function openPkcs11(keys: Extract<KeysConfig, { provider: 'pkcs11' }>): Promise<OpenKeyProvider> {
  const { pkcs11 } = await import('../crypto/pkcs11.ts');
  const { module, token: label, tokenKeyId: keyId, pin, oaepHash } = keys;
  const isWhole = module !== null && label !== null && keyId !== null && pin !== null;
  const token = isWhole ? { module, label, keyId, pin } : null;
  const publicKeyPem = await readPublicKey(keys.publicKeyFile);
  return { provider: withKeyRetry(pkcs11({ publicKeyPem, oaepHash, token })), [Symbol.dispose]: () => undefined };
}

async function readPublicKey(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (cause) {
    throw new KeyFileUnusable(`the public key ${file} can't be read: check the path`, { cause });
  }
}

/** How any of them is reached. */
async function agentsFor({ caFile, proxy }: Pick<Extract<KeysConfig, { provider: 'gcp-kms' }>, 'caFile' | 'proxy'>) {
  return await httpAgents({ ...(caFile !== null && { caFile }), ...(proxy !== null && { proxy: proxy.reveal() }) });
}

const gcpKmsScope = 'https://www.googleapis.com/auth/cloudkms';

/** Tokens come from where those for Google's storage do. */
async function openGcpKms(keys: Extract<KeysConfig, { provider: 'gcp-kms' }>): Promise<OpenKeyProvider> {
  const { gcpKms } = await import('../crypto/gcp-kms.ts');
  const { gcsAuthorization } = await import('../storage-targets/gcs-connection.ts');
  const { key, universe, credentials: from } = keys;
  const agents = await agentsFor(keys);
  const credentials =
    from.from === 'service-account' ? { credentials: { kind: 'service-account' as const, key: from.key } } : {};
  const authorization = gcsAuthorization({ universe, ...credentials }, agents, gcpKmsScope);
  const endpoint = keys.endpoint ?? `https://cloudkms.${universe}`;
  const kms = gcpKms({ key, endpoint, authorization, httpsAgent: agents.httpsAgent });
  return { provider: withKeyRetry(kms), [Symbol.dispose]: () => closeAgents(agents) };
}

async function openVaultTransit(keys: Extract<KeysConfig, { provider: 'vault-transit' }>): Promise<OpenKeyProvider> {
  const { vaultTransit } = await import('../crypto/vault-transit.ts');
  const { address, mount, key, namespace, credentials: from } = keys;
  const httpsAgent = await privateAgent(keys.caFile, keys.proxy);
  const vault = vaultTransit({ address, mount, key, namespace, httpsAgent, login: vaultLogin(from) });
  return { provider: withKeyRetry(vault), [Symbol.dispose]: () => httpsAgent.destroy() };
}

function vaultLogin(from: Extract<KeysConfig, { provider: 'vault-transit' }>['credentials']): VaultLogin {
  switch (from.from) {
    case 'token':
      return { kind: 'token', token: from.token };
    case 'token-file':
      return { kind: 'token-file', file: from.file };
    case 'app-role':
      return { kind: 'app-role', mount: from.mount, roleId: from.roleId, secretId: from.secretId };
  }
}

/** Connections that trust a private CA besides the system's, or go through a proxy. */
async function privateAgent(caFile: string | null, proxy: Secret | null): Promise<HttpsAgent> {
  return new HttpsAgent({
    keepAlive: true,
    ...(caFile !== null && { ca: [...getCACertificates('default'), await readFile(caFile, 'utf8')] }),
    ...(proxy !== null && { proxyEnv: { HTTPS_PROXY: proxy.reveal() } }),
  });
}
