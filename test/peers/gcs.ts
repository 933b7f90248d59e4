/** A real server of Google Cloud Storage's JSON API, a process of its own on loopback. What is in it is gone once it stops. */
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { join } from 'node:path';
import type { GcsOptions } from '../../storage-targets/gcs-bucket.ts';
import { closeAgents, httpAgents } from '../../storage-targets/http-agents.ts';
import { answerText, exchange } from '../../storage-targets/http-exchange.ts';
import { peerFolder, peerNeeds, startServer } from './server-process.ts';
import { makeCertificate } from './tls-certificate.ts';

export interface GcsPeer extends AsyncDisposable {
  readonly endpoint: string;
  /** Key file of a service account, as text. The server believes any token. */
  readonly serviceAccountKey: { reveal(): string };
  /** PEM file of the authority that signed the server's certificate; null: it does not speak TLS. */
  readonly caFile: string | null;
  readonly pid: number;
  /** Makes a bucket and returns its name. */
  createBucket(): Promise<string>;
  /** Kills the server at once. */
  stop(): Promise<void>;
}

export const fakeGcsNeeds = () => peerNeeds('fake-gcs-server');

/** What it takes to open a bucket of the peer. */
export function gcsOptions(peer: GcsPeer, bucket: string): GcsOptions {
  return {
    bucket,
    prefix: 'failkit',
    endpoint: peer.endpoint,
    credentials: { kind: 'service-account', key: peer.serviceAccountKey },
    ...(peer.caFile !== null && { caFile: peer.caFile }),
  };
}

/** Checks generations and checksums; believes every token, and knows no permissions. */
export async function startFakeGcs(options: { readonly tls?: boolean } = {}): Promise<GcsPeer> {
  const certificate = (options.tls ?? true) ? await makeCertificate() : null;
  const scheme = certificate === null ? 'http' : 'https';
  const server = await startServer({
    name: 'fake-gcs-server',
    inMemory: true,
    command: (_, port) => [
      ...[join(peerFolder('fake-gcs-server'), 'fake-gcs-server'), '-backend', 'memory', '-scheme', scheme],
      ...['-host', '127.0.0.1', '-port', String(port), '-log-level', 'warn'],
      ...['-external-url', `${scheme}://127.0.0.1:${port}`, '-public-host', `127.0.0.1:${port}`],
      ...(certificate === null
        ? []
        : ['-cert-location', certificate.certFile, '-private-key-location', certificate.keyFile]),
    ],
  });
  const endpoint = `${scheme}://127.0.0.1:${server.port}`;
  const caFile = certificate?.caFile ?? null;
  const stop = async () => {
    await server.stop();
    await certificate?.[Symbol.asyncDispose]();
  };
  return {
    endpoint,
    serviceAccountKey: makeServiceAccountKey(),
    caFile,
    pid: server.pid,
    createBucket: () => createBucket(endpoint, caFile),
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

function makeServiceAccountKey(): { reveal(): string } {
  const { privateKey } = generateKeyPairSync('rsa', {
    modulusLength: 2048,
    publicKeyEncoding: { type: 'spki', format: 'pem' },
    privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
  });
  const key = {
    type: 'service_account',
    client_email: 'agent@berlin.iam.gserviceaccount.com',
    private_key_id: 'one',
    private_key: privateKey,
  };
  return { reveal: () => JSON.stringify(key) };
}

async function createBucket(endpoint: string, caFile: string | null): Promise<string> {
  const name = `b-${randomUUID()}`;
  const agents = await httpAgents(caFile === null ? {} : { caFile });
  const body = Buffer.from(JSON.stringify({ name }));
  const headers = { 'content-type': 'application/json', 'content-length': String(body.length) };
  const url = `${endpoint}/storage/v1/b?project=berlin`;
  const answer = await exchange(agents, { method: 'POST', url, headers, body: [body] }, new AbortController().signal);
  await answerText(answer);
  closeAgents(agents);
  if (answer.status !== 200) throw new Error(`no bucket was made: HTTP ${answer.status}`);
  return name;
}
