import { randomBytes } from 'node:crypto';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { openAzureTarget } from '../../storage-targets/azure-blob.ts';
import type { AzureOptions } from '../../storage-targets/azure-blob-container.ts';
import { openGcsTarget } from '../../storage-targets/gcs.ts';
import type { GcsOptions } from '../../storage-targets/gcs-bucket.ts';
import type { StorageTarget } from '../../storage-targets/storage-target.ts';
import { wrapTarget } from '../../storage-targets/wrap-target.ts';
import { canaries } from '../canary.ts';
import { type AzurePeer, azureOptions, azuriteNeeds, sasFor, startAzurite } from '../peers/azure.ts';
import { type ConnectProxy, connectProxyNeeds, startConnectProxy } from '../peers/connect-proxy.ts';
import { type FaultProxy, startFaultProxy } from '../peers/fault-proxy.ts';
import { fakeGcsNeeds, type GcsPeer, gcsOptions, startFakeGcs } from '../peers/gcs.ts';
import { freePort } from '../peers/server-process.ts';
import { type Caught, caught, never, put } from './caught.ts';

/** The error of each operation, so that none of them names the same fault differently. */
async function everyError(opening: Promise<StorageTarget>): Promise<Record<string, Caught>> {
  await using target = await opening;
  return {
    put: await caught(put(target, 'error/put')),
    get: await caught(target.get('error/get', null, never)),
    head: await caught(target.head('error/head', never)),
    list: await caught(target.list('error/', {}, never)[Symbol.asyncIterator]().next()),
    delete: await caught(target.delete(['error/delete'], never)),
    now: await caught(target.now(never)),
  };
}

const shown = (errors: Record<string, Caught>) =>
  Object.values(errors)
    .map((error) => error.shown)
    .join('\n');
const codes = (errors: Record<string, Caught>) => [...new Set(Object.values(errors).map(({ code }) => code))];

interface Cloud {
  readonly name: string;
  readonly caFile: string | null;
  readonly port: number;
  /** `endpoint`: the server without TLS, or what stands in front of it. */
  open(bucket: string, more?: { endpoint?: string; proxy?: string; caFile?: string | null }): Promise<StorageTarget>;
  createBucket(): Promise<string>;
}

const needs = [await azuriteNeeds(), await fakeGcsNeeds(), await connectProxyNeeds()].find((need) => need !== null);

describe.skipIf(needs)(needs ?? 'errors of Azure Blob storage and Google Cloud Storage', () => {
  let azurite: AzurePeer;
  let fakeGcs: GcsPeer;
  let proxy: ConnectProxy;
  const wires: FaultProxy[] = [];
  beforeAll(async () => {
    [azurite, fakeGcs, proxy] = await Promise.all([startAzurite(), startFakeGcs(), startConnectProxy()]);
  });
  afterAll(() => Promise.all([azurite, fakeGcs, proxy].map((server) => server?.stop())));
  afterEach(async () => {
    vi.useRealTimers();
    vi.unstubAllEnvs();
    for (const wire of wires.splice(0)) await wire[Symbol.asyncDispose]();
  });

  function trusting<Options extends { readonly caFile?: string }>(options: Options, caFile: string | null | undefined) {
    const { caFile: own, ...rest } = options;
    return caFile === null ? rest : { ...rest, ...((caFile ?? own) !== undefined && { caFile: caFile ?? own }) };
  }
  const clouds: Readonly<Record<'azurite' | 'fake-gcs-server', () => Cloud>> = {
    azurite: () => ({
      name: 'azurite',
      caFile: azurite.caFile,
      port: Number(new URL(azurite.endpoint).port),
      open: (container, { caFile, ...more } = {}) =>
        openAzureTarget({ ...trusting(azureOptions(azurite, container), caFile), ...more } as AzureOptions),
      createBucket: () => azurite.createContainer(),
    }),
    'fake-gcs-server': () => ({
      name: 'fake-gcs-server',
      caFile: fakeGcs.caFile,
      port: Number(new URL(fakeGcs.endpoint).port),
      open: (bucket, { caFile, ...more } = {}) =>
        openGcsTarget({ ...trusting(gcsOptions(fakeGcs, bucket), caFile), ...more } as GcsOptions),
      createBucket: () => fakeGcs.createBucket(),
    }),
  };
  const both = Object.keys(clouds) as readonly (keyof typeof clouds)[];

  it.each(both)('%s: a missing bucket or container is BucketNotFound', async (name) => {
    const errors = await everyError(clouds[name]().open('no-such-bucket'));
    expect(codes(errors)).toEqual(['BUCKET_NOT_FOUND']);
    expect(errors.put?.message).toContain('no-such-bucket');
  });

  it.each(both)('%s: an endpoint where nobody listens is StoreUnavailable', async (name) => {
    const endpoint = `http://127.0.0.1:${await freePort()}`;
    expect(codes(await everyError(clouds[name]().open('any', { endpoint })))).toEqual(['STORE_UNAVAILABLE']);
  });

  it.each(both)('%s: a private authority is trusted when its CA file is given, and only then', async (name) => {
    const cloud = clouds[name]();
    const bucket = await cloud.createBucket();
    expect(codes(await everyError(cloud.open(bucket, { caFile: null })))).toEqual(['TLS_UNTRUSTED']);
    expect((await caught(cloud.open(bucket, { caFile: '/nonexistent.pem' }))).code).toBe('TLS_UNTRUSTED');
  });

  it.each(both)('%s: goes through a CONNECT proxy, whose refusal is an error that hides its password', async (name) => {
    const cloud = clouds[name]();
    const bucket = await cloud.createBucket();
    {
      await using target = await cloud.open(bucket, { proxy: proxy.url });
      const bytes = new Uint8Array(randomBytes(300_000));
      await put(target, 'proxied/object', bytes);
      expect(Buffer.compare(await target.get('proxied/object', null, never), bytes)).toBe(0);
    }
    await expect.poll(() => proxy.log()).toContain(`CONNECT 127.0.0.1:${cloud.port}`);
    const refused = await everyError(cloud.open(bucket, { proxy: proxy.urlWithWrongPassword }));
    expect(codes(refused)).toEqual(['STORE_UNAVAILABLE']);
    const gone = `http://site:${canaries().password}@127.0.0.1:${await freePort()}`;
    const errors = await everyError(cloud.open(bucket, { proxy: gone }));
    expect(codes(errors)).toEqual(['STORE_UNAVAILABLE']);
    expect(shown(errors)).not.toContain(canaries().password);
  });

  it.each(both)('%s: prefixes do not see each other, nor what others put there', async (name) => {
    const cloud = clouds[name]();
    const bucket = await cloud.createBucket();
    await using one = await cloud.open(bucket);
    const options = name === 'azurite' ? azureOptions(azurite, bucket) : gcsOptions(fakeGcs, bucket);
    await using whole =
      name === 'azurite'
        ? await openAzureTarget({ ...(options as AzureOptions), prefix: '' })
        : await openGcsTarget({ ...(options as GcsOptions), prefix: '' });
    await put(one, 'a');
    await put(whole, 'failkit.txt');
    await put(whole, 'failkit-more/a');
    const names: string[] = [];
    for await (const { name: found } of one.list('', {}, never)) names.push(found);
    expect(names).toEqual(['a']);
    expect((await caught(one.get('failkit.txt', null, never))).code).toBe('OBJECT_NOT_FOUND');
  });

  it('Azure: a wrong key, an expired SAS and one for another container are AccessDenied, and never shown', async () => {
    const container = await azurite.createContainer();
    const other = await azurite.createContainer();
    const hidden = Buffer.from(canaries().token).toString('base64');
    const hour = 3_600_000;
    const wrong: readonly AzureOptions['credentials'][] = [
      { kind: 'account-key', accountKey: { reveal: () => hidden } },
      { kind: 'sas', token: sasFor(azurite, container, 'rlcwd', Date.now() - hour) },
      { kind: 'sas', token: sasFor(azurite, other, 'rlcwd', Date.now() + hour) },
    ];
    for (const credentials of wrong) {
      const errors = await everyError(
        openAzureTarget({ ...azureOptions(azurite, container), ...{ credentials } } as AzureOptions),
      );
      expect(codes(errors)).toEqual(['ACCESS_DENIED']);
      expect(shown(errors)).not.toContain(hidden);
      expect(shown(errors)).not.toContain('sig=');
    }
  });

  it('Azure: a SAS that may not delete replicates and reads, and a delete is AccessDenied', async () => {
    const container = await azurite.createContainer();
    const token = sasFor(azurite, container, 'rlc', Date.now() + 3_600_000);
    await using target = await openAzureTarget({
      ...azureOptions(azurite, container),
      credentials: { kind: 'sas', token },
    });
    const bytes = new Uint8Array(randomBytes(1000));
    await put(target, 'create-only', bytes);
    expect(await target.get('create-only', null, never)).toEqual(bytes);
    expect((await caught(put(target, 'create-only'))).code).toBe('OBJECT_EXISTS');
    expect((await caught(target.delete(['create-only'], never))).code).toBe('ACCESS_DENIED');
  });

  it('Azure: a connection string is taken apart, and one of another account refused', async () => {
    const container = await azurite.createContainer();
    const { endpoint: _, ...options } = azureOptions(azurite, container);
    const text = (account: string) =>
      `DefaultEndpointsProtocol=https;AccountName=${account};AccountKey=${azurite.accountKey.reveal()};BlobEndpoint=${azurite.endpoint};`;
    const opened = (connectionString: string) =>
      openAzureTarget({
        ...options,
        credentials: { kind: 'connection-string', connectionString: { reveal: () => connectionString } },
      });
    await using target = await opened(text(azurite.account));
    await put(target, 'by-string');
    for (const wrong of [text('another'), 'DefaultEndpointsProtocol=https'])
      expect((await caught(opened(wrong))).code).toBe('ACCESS_DENIED');
  });

  it('Azure: no identity at all is AccessDenied, and one without TLS is refused at once', async () => {
    const { credentials: _, ...options } = azureOptions(azurite, 'any');
    vi.stubEnv('AZURE_TOKEN_CREDENTIALS', 'EnvironmentCredential');
    expect(codes(await everyError(openAzureTarget(options)))).toEqual(['ACCESS_DENIED']);
    const bare = openAzureTarget({ ...options, endpoint: 'http://127.0.0.1:1/account' });
    expect((await caught(bare)).code).toBe('ACCESS_DENIED');
  });

  it('GCS: no credentials, and a key that is none, are AccessDenied, and the key is never shown', async () => {
    const { credentials: _, ...options } = gcsOptions(fakeGcs, 'any');
    vi.stubEnv('GOOGLE_APPLICATION_CREDENTIALS', '/nonexistent/credentials.json');
    expect(codes(await everyError(openGcsTarget(options)))).toEqual(['ACCESS_DENIED']);
    for (const text of [canaries().token, JSON.stringify({ type: 'authorized_user', secret: canaries().token })]) {
      const error = await caught(
        openGcsTarget({ ...options, credentials: { kind: 'service-account', key: { reveal: () => text } } }),
      );
      expect(error.code).toBe('ACCESS_DENIED');
      expect(error.shown).not.toContain(canaries().token);
    }
  });

  it.each(both)('%s: bytes that change on their way are refused by the store, and leave nothing', async (name) => {
    const { target, wire } = await overWire(name);
    await using _ = target;
    wire.hurt({ fault: 'flip-upload', when: isPut });
    expect((await caught(put(target, 'flipped', new Uint8Array(randomBytes(100_000))))).code).toBe('CHECKSUM_REFUSED');
    expect((await caught(target.head('flipped', never))).code).toBe('OBJECT_NOT_FOUND');
  });

  it.each(both)('%s: a lost answer, a reset and a truncated one are StoreUnavailable', async (name) => {
    const { target, wire } = await overWire(name);
    await using _ = target;
    const bytes = new Uint8Array(randomBytes(500_000));
    for (const fault of ['lose-answer', 'reset-upload'] as const) {
      wire.hurt({ fault, when: isPut });
      expect((await caught(put(target, fault, bytes))).code).toBe('STORE_UNAVAILABLE');
    }
    await put(target, 'whole', bytes);
    for (const fault of ['truncate', 'reset-download'] as const) {
      wire.hurt({ fault, when: isRead });
      const into = new Uint8Array(400_000);
      const range = { offset: 7, length: into.length };
      expect((await caught(target.get('whole', range, never, { into }))).code).toBe('STORE_UNAVAILABLE');
    }
  });

  it.each(both)(
    '%s: throttling and lost answers are survived by the wrappers, and nothing is put twice',
    async (name) => {
      const { target: bare, wire } = await overWire(name);
      const { target, metrics } = wrapTarget(bare, {
        inFlightMax: 8,
        uploadBytesPerSecond: null,
        downloadBytesPerSecond: null,
      });
      await using _ = target;
      wire.hurt({ fault: 'slow-down', when: isPut, times: 3 });
      wire.hurt({ fault: 'lose-answer', when: isPut, times: 2 });
      const all = Array.from({ length: 10 }, (_, i) => ({
        name: `all/${i}`,
        bytes: new Uint8Array(randomBytes(70_000)),
      }));
      await Promise.all(all.map(({ name: each, bytes }) => put(target, each, bytes)));
      for (const { name: each, bytes } of all) expect(await target.get(each, null, never)).toEqual(bytes);
      expect((metrics.put.errors.STORE_THROTTLED ?? 0) + (metrics.put.errors.STORE_UNAVAILABLE ?? 0)).toBe(5);
    },
  );

  const isPut = ({ method, query }: { readonly method: string; readonly query: string }) =>
    method === 'PUT' || query.includes('uploadType');
  const isRead = ({ method, path }: { readonly method: string; readonly path: string }) =>
    method === 'GET' && path.endsWith('whole');

  /** Without TLS, for the proxy looks into what passes. */
  async function overWire(name: keyof typeof clouds) {
    const plain = name === 'azurite' ? await startAzurite({ tls: false }) : await startFakeGcs({ tls: false });
    const { origin, pathname } = new URL(plain.endpoint);
    const wire = await startFaultProxy(origin);
    wires.push(Object.assign(wire, { [Symbol.asyncDispose]: disposeBoth(wire, plain) }));
    const endpoint = `${wire.endpoint}${pathname === '/' ? '' : pathname}`;
    const target =
      'account' in plain
        ? await openAzureTarget({ ...azureOptions(plain, await plain.createContainer()), endpoint })
        : await openGcsTarget({ ...gcsOptions(plain, await plain.createBucket()), endpoint });
    return { target, wire };
  }

  function disposeBoth(wire: FaultProxy, plain: AzurePeer | GcsPeer): () => Promise<void> {
    const closeWire = wire[Symbol.asyncDispose].bind(wire);
    return async () => {
      await closeWire();
      await plain.stop();
    };
  }
});
