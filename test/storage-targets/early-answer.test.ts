import { createHash, generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openAzureTarget } from '../../storage-targets/azure-blob.ts';
import { openGcsTarget } from '../../storage-targets/gcs.ts';
import { openS3Target } from '../../storage-targets/s3.ts';
import type { StorageTarget } from '../../storage-targets/storage-target.ts';
import { canaries } from '../canary.ts';

const never = new AbortController().signal;
const mebibyte = 2 ** 20;
const answerAfterBytes = 64 * 1024;
/** In what the caller puts into the memory once it is its own again. */
const mark = 0xee;

/** A store that refuses a put before it has read it, and goes on reading, slowly. */
class HastyStore {
  readonly #server: Server;
  markedBytes = 0;

  constructor() {
    this.#server = createServer((request, response) => {
      let received = 0;
      request.on('error', () => undefined);
      request.on('data', (chunk: Buffer) => {
        received += chunk.length;
        this.markedBytes += chunk.filter((byte) => byte === mark).length;
        if (received >= answerAfterBytes && !response.headersSent) response.writeHead(500).end();
        request.pause();
        setTimeout(() => request.resume(), 5);
      });
    });
  }

  async start(): Promise<string> {
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  stop(): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }
}

describe('a put that the store refuses before it has read it', () => {
  let store: HastyStore;
  let endpoint: string;
  beforeEach(async () => {
    store = new HastyStore();
    endpoint = await store.start();
  });
  afterEach(() => store.stop());

  const opened: Readonly<Record<string, () => Promise<StorageTarget>>> = {
    s3: () => {
      const secretAccessKey = { reveal: () => canaries().secretAccessKey };
      const credentials = { kind: 'static' as const, accessKeyId: 'key', secretAccessKey };
      return openS3Target({ bucket: 'b', prefix: '', region: 'r', endpoint, pathStyle: true, credentials });
    },
    'azure-blob': () => {
      const credentials = { kind: 'sas' as const, token: { reveal: () => `sig=${canaries().token}` } };
      return openAzureTarget({ account: 'a', container: 'c', endpoint, credentials });
    },
    gcs: () => {
      const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
      const private_key = privateKey.export({ type: 'pkcs8', format: 'pem' });
      const key = { reveal: () => JSON.stringify({ client_email: 'agent@example.net', private_key }) };
      return openGcsTarget({ bucket: 'b', endpoint, credentials: { kind: 'service-account', key } });
    },
  };
  const atOnce = (most: number) => most;
  const paced = (most: number) => sleep(2).then(() => Math.min(most, 128 * 1024));

  it.each(
    Object.keys(opened).flatMap((store) => [[store, 'at once', atOnce] as const, [store, 'at a pace', paced] as const]),
  )('sends nothing more of its memory, which may hold anything by then (%s, %s)', async (name, _, pace) => {
    await using target = (await opened[name]?.()) ?? expect.unreachable(name);
    const bytes = new Uint8Array(new SharedArrayBuffer(8 * mebibyte));
    const sha256 = createHash('sha256').update(bytes).digest();
    const outcome = await target.putIfAbsent('object', bytes, { sha256, pace }, never).then(
      () => 'stored',
      (error: { code?: string }) => error.code,
    );
    expect(outcome).toBe('STORE_UNAVAILABLE');
    bytes.fill(mark);
    await sleep(300);
    expect(store.markedBytes).toBe(0);
  });
});
