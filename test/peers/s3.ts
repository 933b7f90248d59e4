/** Real S3 servers, each a process of its own on loopback. What is in them is gone once they stop. */
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { CreateBucketCommand, S3Client, type S3ServiceException } from '@aws-sdk/client-s3';
import type { S3Options } from '../../storage-targets/s3-bucket.ts';
import { canaries } from '../canary.ts';
import { peerFolder, peerNeeds, type ServerProcess, startServer } from './server-process.ts';
import { type LoopbackCertificate, makeCertificate } from './tls-certificate.ts';

export interface S3Peer extends AsyncDisposable {
  readonly endpoint: string;
  /** Where the server keeps everything. */
  readonly folder: string;
  /** Of the server itself. */
  readonly pid: number;
  readonly region: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: { reveal(): string };
  /** PEM file of the authority that signed the server's certificate, where it speaks TLS. */
  readonly caFile: string | null;
  /** Makes a bucket and returns its name. */
  createBucket(options?: { readonly objectLock?: boolean }): Promise<string>;
  /** Kills the server at once. */
  stop(): Promise<void>;
}

/** What it takes to open a bucket of the peer. */
export function s3Options(peer: S3Peer, bucket: string): S3Options {
  return {
    bucket,
    prefix: 'failkit',
    region: peer.region,
    endpoint: peer.endpoint,
    pathStyle: true,
    credentials: { kind: 'static', accessKeyId: peer.accessKeyId, secretAccessKey: peer.secretAccessKey },
    ...(peer.caFile === null ? {} : { caFile: peer.caFile }),
  };
}

const accessKeyId = 'failkit-test';
const readyAttemptsMax = 100;

export const versityGwNeeds = () => peerNeeds('versitygw');
export const motoNeeds = () => peerNeeds('moto');
export const minioNeeds = () => peerNeeds('minio');

/** Fast, and strict about signatures and checksums; its conditional puts are not atomic. */
export async function startVersityGw(
  options: { readonly tls?: boolean; readonly requestsMax?: number } = {},
): Promise<S3Peer> {
  const certificate = options.tls ? await makeCertificate() : null;
  const server = await startServer({
    name: 'versitygw',
    inMemory: true,
    command: (folder, port) => [
      ...['sh', '-c', 'mkdir data versions && exec "$0" "$@"', join(peerFolder('versitygw'), 'versitygw')],
      ...['--port', `127.0.0.1:${port}`, '--keep-alive', '--quiet', '--region', 'eu-central-1'],
      ...(options.requestsMax === undefined ? [] : ['--max-requests', String(options.requestsMax)]),
      ...(certificate === null ? [] : ['--cert', certificate.certFile, '--key', certificate.keyFile]),
      ...['posix', '--versioning-dir', join(folder, 'versions'), join(folder, 'data')],
    ],
    env: () => ({ ROOT_ACCESS_KEY_ID: accessKeyId, ROOT_SECRET_ACCESS_KEY: canaries().secretAccessKey }),
  });
  return ready(server, 'eu-central-1', certificate);
}

/** Atomic conditional puts at speed; knows regions. */
export async function startMinio(options: { readonly tls?: boolean } = {}): Promise<S3Peer> {
  const certificate = options.tls ? await makeCertificate() : null;
  const copies =
    certificate === null
      ? ''
      : `cp ${certificate.certFile} certs/public.crt && cp ${certificate.keyFile} certs/private.key &&`;
  const server = await startServer({
    name: 'minio',
    inMemory: true,
    command: (folder, port) => [
      ...['sh', '-c', `mkdir certs && ${copies} exec "$0" "$@"`],
      ...[join(peerFolder('minio'), 'minio'), 'server', join(folder, 'data'), '--quiet'],
      ...['--address', `127.0.0.1:${port}`, '--certs-dir', join(folder, 'certs')],
    ],
    env: () => ({
      MINIO_ROOT_USER: accessKeyId,
      MINIO_ROOT_PASSWORD: canaries().secretAccessKey,
      MINIO_CI_CD: '1',
      MINIO_BROWSER: 'off',
      MINIO_SITE_REGION: 'eu-central-1',
    }),
  });
  return ready(server, 'eu-central-1', certificate);
}

/** S3, STS and IAM at one endpoint; enforces policies when told to. Checks no checksums; now and then two racing puts win. */
export async function startMoto(): Promise<S3Peer> {
  const server = await startServer({
    name: 'moto',
    command: (_, port) => [
      ...[join(peerFolder('moto'), 'venv/bin/python'), '-m', 'moto.server', '-H', '127.0.0.1', '-p', String(port)],
    ],
  });
  return ready(server, 'us-east-1', null);
}

async function ready(server: ServerProcess, region: string, certificate: LoopbackCertificate | null): Promise<S3Peer> {
  const endpoint = `${certificate === null ? 'http' : 'https'}://127.0.0.1:${server.port}`;
  const secretAccessKey = { reveal: () => canaries().secretAccessKey };
  const createBucket = (options: { readonly objectLock?: boolean } = {}) =>
    makeBucket(endpoint, region, certificate?.caFile ?? null, options.objectLock ?? false);
  const stop = async () => {
    await server.stop();
    await certificate?.[Symbol.asyncDispose]();
  };
  return {
    endpoint,
    folder: server.folder,
    pid: server.pid,
    region,
    accessKeyId,
    secretAccessKey,
    caFile: certificate?.caFile ?? null,
    createBucket,
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

/** Servers accept connections a little before they can do anything; until then they answer 503. */
async function makeBucket(endpoint: string, region: string, caFile: string | null, lock: boolean): Promise<string> {
  const { Agent } = await import('node:https');
  const { readFile } = await import('node:fs/promises');
  const ca = caFile === null ? undefined : await readFile(caFile, 'utf8');
  const client = new S3Client({
    endpoint,
    region,
    forcePathStyle: true,
    credentials: { accessKeyId, secretAccessKey: canaries().secretAccessKey },
    requestHandler: { httpsAgent: new Agent(ca === undefined ? {} : { ca }) },
  });
  const Bucket = `b-${randomUUID()}`;
  try {
    for (let attempt = 1; ; attempt++) {
      try {
        await client.send(new CreateBucketCommand({ Bucket, ...(lock && { ObjectLockEnabledForBucket: true }) }));
        return Bucket;
      } catch (error) {
        const status = (error as S3ServiceException).$metadata?.httpStatusCode;
        if (status !== 503 || attempt >= readyAttemptsMax) throw error;
        await sleep(100);
      }
    }
  } finally {
    client.destroy();
  }
}
