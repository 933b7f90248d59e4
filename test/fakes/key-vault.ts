import {
  constants,
  generateKeyPairSync,
  type KeyObject,
  privateDecrypt,
  publicEncrypt,
  randomBytes,
} from 'node:crypto';
import { type DoubleAnswer, type HttpDouble, startDouble } from './http-double.ts';

/**
 * What Azure documents of Key Vault's wrapkey and unwrapkey, for want of a server: RSA-OAEP-256, versions, disabled and deleted keys,
 * bearer tokens and the refusals' codes. learn.microsoft.com/rest/api/keyvault/keys/wrap-key
 */

interface KeyVersion {
  readonly version: string;
  readonly publicKey: KeyObject;
  readonly privateKey: KeyObject;
}

interface VaultKey {
  readonly versions: KeyVersion[];
  state: 'enabled' | 'disabled' | 'deleted';
}

export interface KeyVault extends HttpDouble {
  /** Returns its identifier, without a version. */
  createKey(): string;
  rotate(keyId: string): void;
  setState(keyId: string, state: VaultKey['state']): void;
  /** The newest version's identifier, and its public half in PEM. */
  newest(keyId: string): { readonly keyId: string; readonly publicPem: string };
  /** How many requests were made. */
  readonly requests: number;
}

export const goodToken = 'token-of-the-agent';
export const identityHeader = 'header-of-this-host';
export const strangersToken = 'token-of-a-stranger';

/** Making one takes a while: keys of different tests may share their material, never two of one test. */
const material = [0, 1, 2].map(() => generateKeyPairSync('rsa', { modulusLength: 2048 }));

/** `identity`: what the vault's identifiers begin with, where that is not its address. */
export async function startKeyVault(identity?: string): Promise<KeyVault> {
  const keys = new Map<string, VaultKey>();
  let requests = 0;
  let made = 0;
  const newVersion = (): KeyVersion => {
    const pair = material[made++ % material.length];
    if (pair === undefined) throw new Error('no key pair');
    return { version: randomBytes(16).toString('hex'), ...pair };
  };
  const double = await startDouble((request, body) => {
    requests++;
    const url = new URL(request.url ?? '', 'http://127.0.0.1');
    const [, , name = '', ...rest] = url.pathname.split('/');
    const operation = rest.at(-1);
    if (url.pathname === '/identity') return managedIdentity(url, request.headers['x-identity-header']);
    const token = request.headers.authorization?.replace(/^Bearer /, '');
    if (url.searchParams.get('api-version') !== '7.4') return refusal(400, 'BadParameter', 'api-version');
    if (token !== goodToken && token !== strangersToken) return refusal(401, 'Unauthorized', 'AKV10000: no token');
    if (token === strangersToken) return refusal(403, 'Forbidden', 'Caller is not authorized', 'ForbiddenByRbac');
    const key = keys.get(name);
    if (key === undefined || key.state === 'deleted')
      return refusal(404, 'KeyNotFound', `A key with (name/id) ${name} was not found in this key vault.`);
    if (key.state === 'disabled') return refusal(403, 'Forbidden', 'Operation is not allowed.', 'KeyDisabled');
    const version = rest.length === 2 ? key.versions.find((each) => each.version === rest[0]) : key.versions.at(-1);
    if (version === undefined) return refusal(404, 'KeyNotFound', 'no such version');
    return work(operation, version, body, `${base()}/keys/${name}/${version.version}`);
  });
  const base = (): string => identity ?? double.endpoint;
  const nameOf = (keyId: string): string => keyId.split('/')[4] ?? '';
  return {
    ...double,
    get requests() {
      return requests;
    },
    createKey() {
      const name = `failkit-${keys.size}`;
      keys.set(name, { versions: [newVersion()], state: 'enabled' });
      return `${base()}/keys/${name}`;
    },
    rotate: (keyId) => void keys.get(nameOf(keyId))?.versions.push(newVersion()),
    setState(keyId, state) {
      const key = keys.get(nameOf(keyId));
      if (key !== undefined) key.state = state;
    },
    newest(keyId) {
      const newest = keys.get(nameOf(keyId))?.versions.at(-1);
      const publicPem = newest?.publicKey.export({ type: 'spki', format: 'pem' });
      return { keyId: `${keyId}/${newest?.version}`, publicPem: String(publicPem) };
    },
  };
}

/** Where a host in Azure gets its tokens (App Service's protocol): learn.microsoft.com/azure/app-service/overview-managed-identity */
function managedIdentity(url: URL, header: unknown): DoubleAnswer {
  const resource = url.searchParams.get('resource') ?? '';
  if (header !== identityHeader || !/^https:\/\/vault\.azure\.net\/?$/.test(resource))
    return refusal(400, 'BadRequest', `no token for ${resource}`);
  const expires_on = String(Math.ceil(Date.now() / 1000) + 3600);
  return { status: 200, body: { access_token: goodToken, expires_on, resource, token_type: 'Bearer' } };
}

function work(
  operation: string | undefined,
  { publicKey, privateKey }: KeyVersion,
  { alg, value = '' }: Readonly<Record<string, string>>,
  kid: string,
): DoubleAnswer {
  if (alg !== 'RSA-OAEP-256') return refusal(400, 'BadParameter', `alg ${alg}`);
  const bytes = Buffer.from(value, 'base64url');
  const oaep = { padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: 'sha256' };
  try {
    const done =
      operation === 'wrapkey'
        ? publicEncrypt({ key: publicKey, ...oaep }, bytes)
        : privateDecrypt({ key: privateKey, ...oaep }, bytes);
    return { status: 200, body: { kid, value: done.toString('base64url') } };
  } catch {
    return refusal(400, 'BadParameter', 'The parameter is incorrect.');
  }
}

function refusal(status: number, code: string, message: string, inner?: string): DoubleAnswer {
  return { status, body: { error: { code, message, ...(inner && { innererror: { code: inner } }) } } };
}
