/** A real server of Azure Blob storage, a process of its own on loopback that speaks TLS. */
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  ContainerSASPermissions,
  generateBlobSASQueryParameters,
  StorageSharedKeyCredential,
} from '@azure/storage-blob';
import { connectAzure } from '../../storage-targets/azure-blob-connection.ts';
import type { AzureOptions } from '../../storage-targets/azure-blob-container.ts';
import { canaries } from '../canary.ts';
import { peerFolder, peerNeeds, startServer } from './server-process.ts';
import { makeCertificate } from './tls-certificate.ts';

export interface AzurePeer extends AsyncDisposable {
  /** With the account in its path, as emulators have it. */
  readonly endpoint: string;
  readonly account: string;
  readonly accountKey: { reveal(): string };
  /** PEM file of the authority that signed the server's certificate; null: it does not speak TLS. */
  readonly caFile: string | null;
  readonly pid: number;
  /** Makes a container and returns its name. */
  createContainer(): Promise<string>;
  /** Kills the server at once. */
  stop(): Promise<void>;
}

const account = 'failkittest';
const readyAttemptsMax = 100;

export const azuriteNeeds = () => peerNeeds('azurite');

/** What it takes to open a container of the peer. */
export function azureOptions(peer: AzurePeer, container: string): AzureOptions {
  return {
    account: peer.account,
    container,
    prefix: 'failkit',
    endpoint: peer.endpoint,
    credentials: { kind: 'account-key', accountKey: peer.accountKey },
    ...(peer.caFile !== null && { caFile: peer.caFile }),
  };
}

/** Checks keys, SAS, checksums and conditions; keeps no versions and knows no immutability. */
export async function startAzurite(options: { readonly tls?: boolean } = {}): Promise<AzurePeer> {
  const certificate = (options.tls ?? true) ? await makeCertificate() : null;
  const accountKey = { reveal: () => Buffer.from(canaries().secretAccessKey).toString('base64') };
  const script = join(peerFolder('azurite'), 'node_modules/azurite/dist/src/blob/main.js');
  const server = await startServer({
    name: 'azurite',
    inMemory: true,
    command: (folder, port) => [
      ...[process.execPath, script, '--silent', '--location', folder, '--disableTelemetry'],
      ...['--blobHost', '127.0.0.1', '--blobPort', String(port), '--skipApiVersionCheck', '--disableProductStyleUrl'],
      ...(certificate === null
        ? []
        : ['--oauth', 'basic', '--cert', certificate.certFile, '--key', certificate.keyFile]),
    ],
    // It reads thousands of modules before it listens.
    env: () => ({
      AZURITE_ACCOUNTS: `${account}:${accountKey.reveal()}`,
      NODE_COMPILE_CACHE: join(peerFolder('azurite'), 'compiled'),
    }),
  });
  const stop = async () => {
    await server.stop();
    await certificate?.[Symbol.asyncDispose]();
  };
  const peer: AzurePeer = {
    endpoint: `${certificate === null ? 'http' : 'https'}://127.0.0.1:${server.port}/${account}`,
    account,
    accountKey,
    caFile: certificate?.caFile ?? null,
    pid: server.pid,
    createContainer: () => createContainer(peer),
    stop,
    [Symbol.asyncDispose]: stop,
  };
  return peer;
}

/** It accepts connections a little before it can do anything. */
async function createContainer(peer: AzurePeer): Promise<string> {
  const name = `c-${randomUUID()}`;
  using connection = await connectAzure(azureOptions(peer, name));
  for (let attempt = 1; ; attempt++) {
    try {
      await connection.client.create();
      return name;
    } catch (error) {
      if (attempt >= readyAttemptsMax) throw error;
      await sleep(100);
    }
  }
}

/** A shared access signature for one container: `permissions` are letters as Azure has them, r read, l list, c create. */
export function sasFor(
  peer: AzurePeer,
  containerName: string,
  permissions: string,
  untilMs: number,
): { reveal(): string } {
  const key = new StorageSharedKeyCredential(peer.account, peer.accountKey.reveal());
  const settings = {
    containerName,
    permissions: ContainerSASPermissions.parse(permissions),
    expiresOn: new Date(untilMs),
  };
  const text = generateBlobSASQueryParameters(settings, key).toString();
  return { reveal: () => text };
}
