import { readFile } from 'node:fs/promises';
import { Agent as HttpAgent } from 'node:http';
import { Agent as HttpsAgent } from 'node:https';
import { getCACertificates } from 'node:tls';

import type { S3ClientConfig } from '@aws-sdk/client-s3';
import { fromNodeProviderChain, fromTemporaryCredentials, fromTokenFile } from '@aws-sdk/credential-providers';
import { HttpsProxyAgent } from 'https-proxy-agent';

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
  /** Left out: AWS's own, in the bucket's region. */
  readonly stsEndpoint?: string;
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
  };
  if (options.proxy === undefined) return { httpAgent: new HttpAgent(settings), httpsAgent: new HttpsAgent(settings) };
  const proxyAgent = new HttpsProxyAgent(options.proxy, settings);
  return { httpAgent: proxyAgent, httpsAgent: proxyAgent as unknown as HttpsAgent };
}

async function trusted(caFile: string): Promise<string[]> {
  return [...getCACertificates('default'), await readFile(caFile, 'utf8')];
}

type Provider = NonNullable<S3ClientConfig['credentials']>;

function credentialProvider({ credentials, assumeRole, region }: S3ConnectionOptions): Provider {
  const own = ownCredentials(credentials);
  if (assumeRole === undefined) return own;
  const { roleArn, externalId, sessionName, stsEndpoint } = assumeRole;
  return fromTemporaryCredentials({
    masterCredentials: own,
    params: {
      RoleArn: roleArn,
      RoleSessionName: sessionName ?? sessionNameDefault,
      ...(externalId === undefined ? {} : { ExternalId: externalId }),
    },
    clientConfig: { region, ...(stsEndpoint === undefined ? {} : { endpoint: stsEndpoint }) },
  });
}

function ownCredentials(credentials: S3Credentials | undefined): Provider {
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
