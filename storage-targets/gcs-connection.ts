import { type AuthClient, GoogleAuth, JWT } from 'google-auth-library';

import { AccessDenied } from './errors.ts';
import type { Hidden } from './hidden.ts';
import type { ConnectionOptions, HttpAgents } from './http-agents.ts';

export interface GcsConnectionOptions extends ConnectionOptions {
  readonly bucket: string;
  /** Left out: googleapis.com. Sovereign clouds have names of their own. */
  readonly universe?: string;
  /** Left out: that of the universe. */
  readonly endpoint?: string;
  readonly credentials?: GcsCredentials;
}

/** Left out: Application Default Credentials, workload identity federation included. */
export interface GcsCredentials {
  readonly kind: 'service-account';
  /** The JSON text of the key file. */
  readonly key: Hidden;
}

/** What each request carries so that the store knows who asks. */
export type AuthorizationOf = (url: string) => Promise<Readonly<Record<string, string>>>;

const storageScope = 'https://www.googleapis.com/auth/devstorage.read_write';
const tokenTimeoutMs = 30_000;

export function gcsEndpoint({ endpoint, universe = 'googleapis.com' }: GcsConnectionOptions): string {
  return endpoint ?? `https://storage.${universe}`;
}

/**
 * Tokens are asked for through the same proxy, and with the same trust, as the store; tries are repeated by our own wrapper. `scope`:
 * another service's than the store's.
 */
export function gcsAuthorization(
  options: Pick<GcsConnectionOptions, 'credentials' | 'universe'>,
  agents: HttpAgents,
  scope = storageScope,
): AuthorizationOf {
  const agent = (url: URL) => (url.protocol === 'https:' ? agents.httpsAgent : agents.httpAgent);
  const transporterOptions = { agent, timeout: tokenTimeoutMs, retryConfig: { retry: 0, noResponseRetries: 0 } };
  const client =
    options.credentials === undefined
      ? new GoogleAuth({
          scopes: [scope],
          // Nobody needs it: but without one the library asks Cloud Resource Manager, where an agent has no business.
          projectId: 'none',
          clientOptions: { transporterOptions },
          ...(options.universe !== undefined && { universeDomain: options.universe }),
        })
      : serviceAccount(options.credentials.key.reveal(), scope);
  return async (url) => Object.fromEntries(await client.getRequestHeaders(url));
}

/** Signs its own tokens, so nobody has to be asked for one. */
function serviceAccount(text: string, scope: string): AuthClient {
  const key = parseKey(text);
  const client = new JWT({
    email: key.client_email,
    key: key.private_key,
    scopes: [scope],
    ...(key.private_key_id !== undefined && { keyId: key.private_key_id }),
    ...(key.universe_domain !== undefined && { universeDomain: key.universe_domain }),
  });
  client.useJWTAccessWithScope = true;
  return client;
}

interface ServiceAccountKey {
  readonly client_email: string;
  readonly private_key: string;
  readonly private_key_id?: string;
  readonly universe_domain?: string;
}

function parseKey(text: string): ServiceAccountKey {
  let key: unknown;
  try {
    key = JSON.parse(text);
  } catch {
    // The parser's own error would quote the secret.
  }
  if (isServiceAccountKey(key)) return key;
  throw new AccessDenied(
    "the service account's key is not the JSON file that Google Cloud gives out (client_email, private_key): take that file as it is",
  );
}

function isServiceAccountKey(key: unknown): key is ServiceAccountKey {
  if (typeof key !== 'object' || key === null) return false;
  const has = (name: string) => typeof Reflect.get(key, name) === 'string';
  const mayHave = (name: string) => Reflect.get(key, name) === undefined || has(name);
  return has('client_email') && has('private_key') && mayHave('private_key_id') && mayHave('universe_domain');
}
