import type { TokenCredential } from '@azure/identity';
import {
  AnonymousCredential,
  ContainerClient,
  type HttpOperationResponse,
  type IHttpClient,
  newPipeline,
  StorageSharedKeyCredential,
  type WebResource,
} from '@azure/storage-blob';

import { AccessDenied } from './errors.ts';
import type { Hidden } from './hidden.ts';
import { type ConnectionOptions, closeAgents, type HttpAgents, httpAgents } from './http-agents.ts';
import { answerText, exchange } from './http-exchange.ts';

export interface AzureConnectionOptions extends ConnectionOptions {
  readonly account: string;
  readonly container: string;
  readonly cloud?: AzureCloud;
  /** Left out: the account's own host name in its cloud. */
  readonly endpoint?: string;
  readonly credentials?: AzureCredentials;
}

/** Sovereign clouds have host names of their own. */
export type AzureCloud = 'public' | 'us-government' | 'china';

/** Left out: Azure's chain of environment, workload identity, managed identity and developer's logins. */
export type AzureCredentials =
  | { readonly kind: 'identity'; readonly clientId: string }
  | { readonly kind: 'account-key'; readonly accountKey: Hidden }
  | { readonly kind: 'sas'; readonly token: Hidden }
  | { readonly kind: 'connection-string'; readonly connectionString: Hidden };

export interface AzureConnection extends Disposable {
  readonly client: ContainerClient;
}

/** learn.microsoft.com/azure/azure-government/compare-azure-government-global-azure, learn.microsoft.com/azure/china */
const clouds = {
  public: { blobs: 'blob.core.windows.net', authority: 'https://login.microsoftonline.com' },
  'us-government': { blobs: 'blob.core.usgovcloudapi.net', authority: 'https://login.microsoftonline.us' },
  china: { blobs: 'blob.core.chinacloudapi.cn', authority: 'https://login.chinacloudapi.cn' },
} as const;

/** Retry is a wrapper of ours, and requests go through our own agents: the SDK adds signatures, tokens and XML. */
export async function connectAzure(options: AzureConnectionOptions): Promise<AzureConnection> {
  const agents = await httpAgents(options);
  const access = accessOf(options);
  const endpoint = options.endpoint ?? access.endpoint ?? ownEndpoint(options);
  const credential = access.sharedKey ?? (access.sas === null ? await entraIdentity(options, agents, endpoint) : null);
  const pipeline = newPipeline(credential ?? new AnonymousCredential(), {
    httpClient: httpClient(agents),
    retryOptions: { maxTries: 1 },
  });
  const url = `${endpoint}/${encodeURIComponent(options.container)}${access.sas === null ? '' : `?${access.sas}`}`;
  return { client: new ContainerClient(url, pipeline), [Symbol.dispose]: () => closeAgents(agents) };
}

function ownEndpoint({ account, cloud = 'public' }: AzureConnectionOptions): string {
  return `https://${account}.${clouds[cloud].blobs}`;
}

interface Access {
  readonly sharedKey: StorageSharedKeyCredential | null;
  readonly sas: string | null;
  readonly endpoint: string | null;
}

function accessOf({ account, credentials }: AzureConnectionOptions): Access {
  const none: Access = { sharedKey: null, sas: null, endpoint: null };
  switch (credentials?.kind) {
    case undefined:
    case 'identity':
      return none;
    case 'account-key':
      return { ...none, sharedKey: new StorageSharedKeyCredential(account, credentials.accountKey.reveal()) };
    case 'sas':
      return { ...none, sas: credentials.token.reveal().replace(/^\?/, '') };
    case 'connection-string':
      return accessOfString(account, credentials.connectionString.reveal());
  }
}

/** `Name=value;Name=value`, as the portal shows it. */
function accessOfString(account: string, text: string): Access {
  const parts = new Map(text.split(';').map((part) => splitOnce(part.trim())));
  const [name, key, sas] = ['AccountName', 'AccountKey', 'SharedAccessSignature'].map((part) => parts.get(part));
  if (name !== undefined && name !== account)
    throw new AccessDenied(`the connection string is of storage account ${name}, not of ${account}: take the other's`);
  if (key === undefined && sas === undefined)
    throw new AccessDenied(
      `the connection string for storage account ${account} holds neither AccountKey nor SharedAccessSignature: copy the whole of it`,
    );
  return {
    sharedKey: key === undefined ? null : new StorageSharedKeyCredential(account, key),
    sas: key === undefined ? (sas ?? null) : null,
    endpoint: parts.get('BlobEndpoint')?.replace(/\/+$/, '') ?? null,
  };
}

function splitOnce(part: string): [string, string] {
  const at = part.indexOf('=');
  return at < 0 ? [part, ''] : [part.slice(0, at), part.slice(at + 1)];
}

async function entraIdentity(
  { cloud, credentials }: AzureConnectionOptions,
  agents: HttpAgents,
  endpoint: string,
): Promise<TokenCredential> {
  if (!endpoint.startsWith('https://'))
    throw new AccessDenied(`${endpoint}: an identity's token goes over TLS only: give an https:// endpoint, or a key`);
  return await azureIdentity(
    { cloud, clientId: credentials?.kind === 'identity' ? credentials.clientId : null },
    agents,
  );
}

/** Azure's chain. Loaded only here: whoever has a key or a SAS does not need the libraries behind it. */
export async function azureIdentity(
  { cloud = 'public', clientId }: { readonly cloud?: AzureCloud | undefined; readonly clientId: string | null },
  agents: HttpAgents,
): Promise<TokenCredential> {
  const { DefaultAzureCredential } = await import('@azure/identity');
  return new DefaultAzureCredential({
    authorityHost: clouds[cloud].authority,
    retryOptions: { maxRetries: 1 },
    ...(clientId !== null && { managedIdentityClientId: clientId, workloadIdentityClientId: clientId }),
    additionalPolicies: [
      {
        position: 'perRetry',
        policy: {
          name: 'ownAgents',
          sendRequest(request, next) {
            request.agent = request.url.startsWith('https:') ? agents.httpsAgent : agents.httpAgent;
            return next(request);
          },
        },
      },
    ],
  });
}

const neverAborted = new AbortController().signal;

function httpClient(agents: HttpAgents): IHttpClient {
  return {
    async sendRequest(request: WebResource): Promise<HttpOperationResponse> {
      const { method, url, headers, body, abortSignal } = request;
      const signal = abortSignal instanceof AbortSignal ? abortSignal : neverAborted;
      const sent = { method, url, headers: headers.rawHeaders(), body: bodyParts(body) };
      const answer = await exchange(agents, sent, signal);
      const given = headers.clone();
      for (const name of given.headerNames()) given.remove(name);
      for (const [name, value] of Object.entries(answer.headers)) given.set(name, value);
      const streams = request.streamResponseStatusCodes;
      const streamed = streams?.has(answer.status) || streams?.has(Number.POSITIVE_INFINITY);
      return {
        request,
        status: answer.status,
        headers: given,
        ...(streamed ? { readableStreamBody: answer.body } : { bodyAsText: await answerText(answer) }),
      };
    },
  };
}

/** What the SDK hands on: a body of ours as it is, its own XML as text, or a function that makes a stream. */
function bodyParts(body: unknown): Parameters<typeof exchange>[1]['body'] {
  if (body === undefined || body === null) return [];
  if (typeof body === 'string') return [Buffer.from(body)];
  if (typeof body === 'function') return [body()];
  return [body as Uint8Array];
}
