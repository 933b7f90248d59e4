/** Each kind of store, over TLS, behind a proxy that hurts what passes. */

import { openAzureTarget } from '../../storage-targets/azure-blob.ts';
import { openGcsTarget } from '../../storage-targets/gcs.ts';
import { openS3Target } from '../../storage-targets/s3.ts';
import type { StorageTarget } from '../../storage-targets/storage-target.ts';
import { azureOptions, azuriteNeeds, startAzurite } from '../peers/azure.ts';
import { type FaultProxy, type FaultRule, startFaultProxy, type Throttles } from '../peers/fault-proxy.ts';
import { fakeGcsNeeds, gcsOptions, startFakeGcs } from '../peers/gcs.ts';
import { minioNeeds, s3Options, startMinio } from '../peers/s3.ts';
import type { Settings } from './site.ts';

export interface StoreOnTheWire extends AsyncDisposable {
  readonly wire: FaultProxy;
  /** What the configuration says of it; secrets are words of the environment. */
  readonly repository: Settings;
  readonly environment: Record<string, string>;
  /** Without wrappers. */
  openTarget(): Promise<StorageTarget>;
  /** Of a put: what a name that is free answers, and one that is taken. */
  readonly statuses: readonly [created: number, exists: number];
  /** What a 503 is called: Google's does not say that it is the caller's rate. */
  readonly codeOf503: string;
}

export interface StoreKind {
  readonly name: Throttles;
  readonly needs: string | null;
  start(): Promise<StoreOnTheWire>;
}

export const isPut: FaultRule['when'] = ({ method, query }) => method === 'PUT' || query.includes('uploadType');
export const isSegmentPut: FaultRule['when'] = (request) => isPut(request) && request.path.includes('/segments/');
export const isEntryPut: FaultRule['when'] = (request) => isPut(request) && request.path.includes('/chain/');
export const isSegmentGet: FaultRule['when'] = ({ method, path }) => method === 'GET' && path.includes('/segments/');

export const stores: readonly StoreKind[] = [
  { name: 's3', needs: await minioNeeds(), start: startS3 },
  { name: 'azure', needs: await azuriteNeeds(), start: startAzure },
  { name: 'gcs', needs: await fakeGcsNeeds(), start: startGcs },
];

const prefix = 'replicas/berlin';

async function startS3(): Promise<StoreOnTheWire> {
  const peer = await startMinio({ tls: true });
  const bucket = await peer.createBucket();
  const wire = await proxyOf(peer, peer.endpoint, 's3');
  const at = { endpoint: wire.endpoint, caFile: wire.caFile ?? '' };
  return {
    wire,
    repository: {
      ...{ target: 's3', bucket, prefix, region: peer.region, pathStyle: true, ...at },
      credentials: { from: 'access-key', accessKeyId: peer.accessKeyId, secretAccessKey: `\${env:SECRET}` },
    },
    environment: { SECRET: peer.secretAccessKey.reveal() },
    openTarget: () => openS3Target({ ...s3Options(peer, bucket), ...at }),
    statuses: [200, 412],
    codeOf503: 'STORE_THROTTLED',
    [Symbol.asyncDispose]: () => endBoth(wire, peer),
  };
}

async function startAzure(): Promise<StoreOnTheWire> {
  const peer = await startAzurite();
  const container = await peer.createContainer();
  const wire = await proxyOf(peer, new URL(peer.endpoint).origin, 'azure');
  const at = { endpoint: `${wire.endpoint}/${peer.account}`, caFile: wire.caFile ?? '' };
  return {
    wire,
    repository: {
      ...{ target: 'azure-blob', account: peer.account, container, prefix, ...at },
      credentials: { from: 'account-key', accountKey: `\${env:SECRET}` },
    },
    environment: { SECRET: peer.accountKey.reveal() },
    openTarget: () => openAzureTarget({ ...azureOptions(peer, container), ...at }),
    statuses: [201, 409],
    codeOf503: 'STORE_THROTTLED',
    [Symbol.asyncDispose]: () => endBoth(wire, peer),
  };
}

async function startGcs(): Promise<StoreOnTheWire> {
  const peer = await startFakeGcs();
  const bucket = await peer.createBucket();
  const wire = await proxyOf(peer, peer.endpoint, 'gcs');
  const at = { endpoint: wire.endpoint, caFile: wire.caFile ?? '' };
  return {
    wire,
    repository: {
      ...{ target: 'gcs', bucket, prefix, ...at },
      credentials: { from: 'service-account', key: `\${env:SECRET}` },
    },
    environment: { SECRET: peer.serviceAccountKey.reveal() },
    openTarget: () => openGcsTarget({ ...gcsOptions(peer, bucket), ...at }),
    statuses: [200, 412],
    codeOf503: 'STORE_UNAVAILABLE',
    [Symbol.asyncDispose]: () => endBoth(wire, peer),
  };
}

async function proxyOf(
  { caFile }: { readonly caFile: string | null },
  endpoint: string,
  throttles: Throttles,
): Promise<FaultProxy> {
  if (caFile === null) throw new Error('the server does not speak TLS');
  return await startFaultProxy(endpoint, { upstreamCaFile: caFile, throttles });
}

async function endBoth(wire: FaultProxy, peer: { stop(): Promise<void> }): Promise<void> {
  await wire[Symbol.asyncDispose]();
  await peer.stop();
}
