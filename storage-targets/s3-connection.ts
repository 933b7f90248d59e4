import { readFile } from 'node:fs/promises';
import { Agent as HttpAgent } from 'node:http';
import { Agent as HttpsAgent } from 'node:https';
import { getCACertificates } from 'node:tls';

import type { S3ClientConfig } from '@aws-sdk/client-s3';
import { fromNodeProviderChain, fromTemporaryCredentials, fromTokenFile } from '@aws-sdk/credential-providers';

import { TlsUntrusted } from './errors.ts';
import { withSocketMemory } from './socket-memory.ts';

export interface S3ConnectionOptions {
  readonly region: string;
  /** Left out: AWS's own endpoint of the region. */
  readonly endpoint?: string;
  /** `endpoint/bucket/…` instead of `bucket.endpoint/…`; most S3 servers that are not AWS want it. */
  readonly pathStyle?: boolean;
  /** PEM file of a private certificate authority, trusted besides the system's. */
  readonly caFile?: string;
  /** `http://[user:password@]host:port` of a CONNECT proxy; TLS goes through it end to end. */
  readonly proxy?: string;
  readonly credentials?: S3Credentials;
  readonly assumeRole?: AssumedRole;
  /** Where roles are asked for. Left out: AWS's own, in the bucket's region. */
  readonly stsEndpoint?: string;
  /** Requests that can be under way at once; at least the in-flight limit around this target. */
  readonly socketsMax?: number;
}

/** Left out: the SDK's chain of environment, shared files, web identity, container and instance roles. */
export type S3Credentials =
  | { readonly kind: 'profile'; readonly profile: string }
  | {
      readonly kind: 'web-identity';
      readonly roleArn: string;
      readonly tokenFile: string;
      readonly sessionName?: string;
    }
  | {
      readonly kind: 'static';
      readonly accessKeyId: string;
      readonly secretAccessKey: Hidden;
      readonly sessionToken?: Hidden;
    };

/** A secret that prints as nothing readable and is opened only here (`crypto/redacted.ts` makes one). */
export interface Hidden {
  reveal(): string;
}

/** Taken on with the credentials above. */
export interface AssumedRole {
  readonly roleArn: string;
  readonly externalId?: string;
  readonly sessionName?: string;
}

const connectTimeoutMs = 10_000;
/** No byte in either direction for so long ends a request; a slow upload that moves goes on. */
const silenceTimeoutMs = 60_000;
const socketsMaxDefault = 64;
const sessionNameDefault = 'failkit-agent';

/** Retry is a wrapper of ours, checksums are supplied by us, and the SDK's warnings go nowhere near our output. */
export async function s3ClientConfig(options: S3ConnectionOptions): Promise<S3ClientConfig> {
  const agents = await httpAgents(options);
  return {
    region: options.region,
    ...(options.endpoint === undefined ? {} : { endpoint: options.endpoint }),
    forcePathStyle: options.pathStyle ?? false,
    credentials: credentialProvider(options),
    maxAttempts: 1,
    followRegionRedirects: false,
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    // Waiting for "100 Continue" would cost a round trip for each segment, and stall where proxies swallow it.
    expectContinueHeader: false,
    logger: silent,
    requestHandler: { ...agents, connectionTimeout: connectTimeoutMs, socketTimeout: silenceTimeoutMs, logger: silent },
  };
}

/** Agents of our own: the SDK then neither makes one per request nor changes their settings. */
async function httpAgents(options: S3ConnectionOptions): Promise<{ httpAgent: HttpAgent; httpsAgent: HttpsAgent }> {
  const settings = {
    keepAlive: true,
    maxSockets: options.socketsMax ?? socketsMaxDefault,
    scheduling: 'lifo' as const,
    ...(options.caFile === undefined ? {} : { ca: await trusted(options.caFile) }),
    ...(options.proxy === undefined ? {} : { proxyEnv: { HTTP_PROXY: options.proxy, HTTPS_PROXY: options.proxy } }),
  };
  const agents = { httpAgent: new HttpAgent(settings), httpsAgent: new HttpsAgent(settings) };
  // Through a proxy Node makes a connection within a connection by itself.
  if (options.proxy !== undefined) return agents;
  return { httpAgent: withSocketMemory(agents.httpAgent), httpsAgent: withSocketMemory(agents.httpsAgent) };
}

async function trusted(caFile: string): Promise<string[]> {
  try {
    return [...getCACertificates('default'), await readFile(caFile, 'utf8')];
  } catch (error) {
    throw new TlsUntrusted(`the CA file ${caFile} cannot be read: correct its path or its permissions`, {
      cause: error,
    });
  }
}

type Provider = NonNullable<S3ClientConfig['credentials']>;

function credentialProvider(options: S3ConnectionOptions): Provider {
  const { assumeRole } = options;
  const own = ownCredentials(options);
  if (assumeRole === undefined) return own;
  return fromTemporaryCredentials({
    masterCredentials: own,
    params: {
      RoleArn: assumeRole.roleArn,
      RoleSessionName: assumeRole.sessionName ?? sessionNameDefault,
      ...(assumeRole.externalId === undefined ? {} : { ExternalId: assumeRole.externalId }),
    },
    clientConfig: stsConfig(options),
  });
}

/** The proxy and the CA are not repeated here: STS clients take the connection of the client that they serve. */
function stsConfig({ region, stsEndpoint }: S3ConnectionOptions): { region: string; endpoint?: string } {
  return { region, ...(stsEndpoint === undefined ? {} : { endpoint: stsEndpoint }) };
}

function ownCredentials(options: S3ConnectionOptions): Provider {
  const { credentials } = options;
  switch (credentials?.kind) {
    case undefined:
      return fromNodeProviderChain();
    case 'profile':
      return fromNodeProviderChain({ profile: credentials.profile });
    case 'web-identity':
      return fromTokenFile({
        roleArn: credentials.roleArn,
        webIdentityTokenFile: credentials.tokenFile,
        roleSessionName: credentials.sessionName ?? sessionNameDefault,
        clientConfig: stsConfig(options),
      });
    case 'static': {
      const { accessKeyId, secretAccessKey, sessionToken } = credentials;
      return {
        accessKeyId,
        secretAccessKey: secretAccessKey.reveal(),
        ...(sessionToken && { sessionToken: sessionToken.reveal() }),
      };
    }
  }
}

const discard = () => undefined;
const silent = { trace: discard, debug: discard, info: discard, warn: discard, error: discard };
