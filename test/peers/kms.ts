/** A KMS server process of its own on loopback. Every key, user and policy in it is gone once it stops. */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { CreateKeyCommand, KMSClient } from '@aws-sdk/client-kms';
import { Secret } from '../../crypto/redacted.ts';
import { canaries } from '../canary.ts';
import { peerFolder, peerNeeds, startServer } from './server-process.ts';

export interface KmsPeer extends AsyncDisposable {
  readonly endpoint: string;
  readonly region: string;
  /** May do everything. */
  readonly credentials: { readonly accessKeyId: string; readonly secretAccessKey: Secret };
  readonly admin: KMSClient;
  /** One call of the IAM query API, as root; returns the XML of the answer. */
  iam(action: string, parameters: Readonly<Record<string, string>>): Promise<string>;
  /** Makes a symmetric encryption key and returns its ARN. */
  createKey(): Promise<string>;
  /** Kills the server at once, as a power cut would. */
  stop(): Promise<void>;
}

const accessKeyId = 'test';
const region = 'eu-central-1';
const readyTimeoutMs = 120_000;
const answerTimeoutMs = 10_000;

export const kmsNeeds = () => peerNeeds('localemu');

/** `enforceIam`: requests are checked against IAM policies; needed for AccessDenied and for unknown credentials. */
export async function startKms(options: { readonly enforceIam?: boolean } = {}): Promise<KmsPeer> {
  const server = await startServer({
    name: 'localemu',
    command: (_, port) => [
      ...[join(peerFolder('localemu'), 'venv/bin/localemu'), 'start', '--host', '127.0.0.1', '--port', String(port)],
    ],
    env: () => ({
      SERVICES: 'kms,sts,iam',
      // Its default server (twisted) listens on every interface, whatever it is told.
      GATEWAY_SERVER: 'hypercorn',
      SKIP_SSL_CERT_DOWNLOAD: '1',
      DISABLE_EVENTS: '1',
      ...(options.enforceIam && { IAM_ENFORCEMENT: '1', ROOT_ACCESS_KEYS: accessKeyId }),
    }),
  });
  const endpoint = `http://127.0.0.1:${server.port}`;
  try {
    await healthy(endpoint);
  } catch (cause) {
    const log = server.logTail();
    await server.stop();
    throw new Error(`the KMS server at ${endpoint} never became ready:\n${log}`, { cause });
  }
  return peerAt(endpoint, server.stop);
}

function peerAt(endpoint: string, stopServer: () => Promise<void>): KmsPeer {
  const secretAccessKey = canaries().secretAccessKey;
  const admin = new KMSClient({ endpoint, region, credentials: { accessKeyId, secretAccessKey } });
  const stop = async () => {
    admin.destroy();
    await stopServer();
  };
  return {
    endpoint,
    region,
    credentials: { accessKeyId, secretAccessKey: new Secret(secretAccessKey) },
    admin,
    async createKey() {
      const { KeyMetadata } = await admin.send(new CreateKeyCommand({ Description: 'failkit test' }));
      if (!KeyMetadata?.Arn) throw new Error('the KMS server made a key without an ARN');
      return KeyMetadata.Arn;
    },
    iam: (action, parameters) => askIam(endpoint, action, parameters),
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

/** IAM by hand, for three calls need no SDK: the server reads the access key and skips the signature. */
async function askIam(endpoint: string, action: string, parameters: Readonly<Record<string, string>>): Promise<string> {
  const scope = `${accessKeyId}/20260101/us-east-1/iam/aws4_request`;
  const response = await fetch(endpoint, {
    method: 'POST',
    headers: { authorization: `AWS4-HMAC-SHA256 Credential=${scope}, SignedHeaders=host, Signature=0` },
    body: new URLSearchParams({ Action: action, Version: '2010-05-08', ...parameters }),
  });
  const xml = await response.text();
  if (!response.ok) throw new Error(`IAM ${action} failed: ${xml}`);
  return xml;
}

/** It accepts connections a little before it can answer. */
async function healthy(endpoint: string): Promise<void> {
  const until = performance.now() + readyTimeoutMs;
  for (;;) {
    const answer = await fetch(`${endpoint}/_localemu/health`, { signal: AbortSignal.timeout(answerTimeoutMs) }).catch(
      (error: unknown) => error,
    );
    if (answer instanceof Response && answer.ok) return;
    if (performance.now() > until) throw answer instanceof Response ? new Error(`it answers ${answer.status}`) : answer;
    await sleep(100);
  }
}
