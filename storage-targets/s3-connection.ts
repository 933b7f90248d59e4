import type { S3ClientConfig } from '@aws-sdk/client-s3';
import { fromNodeProviderChain, fromTemporaryCredentials, fromTokenFile } from '@aws-sdk/credential-providers';
import type { Hidden } from './hidden.ts';
import {
  type ConnectionOptions,
  connectTimeoutMs,
  type HttpAgents,
  httpAgents,
  silenceTimeoutMs,
} from './http-agents.ts';
import { withSocketMemory } from './socket-memory.ts';

export interface S3ConnectionOptions extends ConnectionOptions {
  readonly region: string;
  /** Left out: AWS's own endpoint of the region. */
  readonly endpoint?: string;
  /** `endpoint/bucket/…` instead of `bucket.endpoint/…`; most S3 servers that are not AWS want it. */
  readonly pathStyle?: boolean;
  readonly credentials?: S3Credentials;
  readonly assumeRole?: AssumedRole;
  /** Where roles are asked for. Left out: AWS's own, in the bucket's region. */
  readonly stsEndpoint?: string;
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

/** Taken on with the credentials above. */
export interface AssumedRole {
  readonly roleArn: string;
  readonly externalId?: string;
  readonly sessionName?: string;
}

const sessionNameDefault = 'failkit-agent';

/** Retry is a wrapper of ours, checksums are supplied by us, and the SDK's warnings go nowhere near our output. */
export async function s3ClientConfig(options: S3ConnectionOptions): Promise<S3ClientConfig> {
  const agents = remembering(await httpAgents(options), options);
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

/** Through a proxy Node makes a connection within a connection by itself. */
function remembering(agents: HttpAgents, { proxy }: S3ConnectionOptions): HttpAgents {
  if (proxy !== undefined) return agents;
  return { httpAgent: withSocketMemory(agents.httpAgent), httpsAgent: withSocketMemory(agents.httpsAgent) };
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
