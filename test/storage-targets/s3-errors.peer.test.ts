import { randomBytes } from 'node:crypto';
import { createServer } from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { openS3Target } from '../../storage-targets/s3.ts';
import type { S3Options } from '../../storage-targets/s3-bucket.ts';
import { wrapTarget } from '../../storage-targets/wrap-target.ts';
import { canaries } from '../canary.ts';
import { type ConnectProxy, connectProxyNeeds, startConnectProxy } from '../peers/connect-proxy.ts';
import { minioNeeds, type S3Peer, s3Options, startMinio, startVersityGw, versityGwNeeds } from '../peers/s3.ts';
import { freePort } from '../peers/server-process.ts';
import { type Caught, caught, never, put } from './caught.ts';

/** The error of each operation, so that none of them names the same fault differently. */
async function everyError(options: S3Options): Promise<Record<string, Caught>> {
  await using target = await openS3Target(options);
  return {
    put: await caught(put(target, 'error/put')),
    get: await caught(target.get('error/get', null, never)),
    head: await caught(target.head('error/head', never)),
    list: await caught(target.list('error/', {}, never)[Symbol.asyncIterator]().next()),
    delete: await caught(target.delete(['error/delete'], never)),
    extendRetention: await caught(target.extendRetention('error/x', new Date(Date.now() + 60_000), never)),
    now: await caught(target.now(never)),
  };
}

const shown = (errors: Record<string, Caught | undefined>) =>
  Object.values(errors)
    .map((error) => error?.shown)
    .join('\n');
const codes = (errors: Record<string, Caught>) => new Set(Object.values(errors).map(({ code }) => code));

const needs = [await versityGwNeeds(), await minioNeeds(), await connectProxyNeeds()].find((need) => need !== null);

describe.skipIf(needs)(needs ?? 'errors of S3 servers', () => {
  let versityGw: S3Peer;
  let minio: S3Peer;
  let tls: S3Peer;
  let proxy: ConnectProxy;
  beforeAll(async () => {
    [versityGw, minio, tls, proxy] = await Promise.all([
      startVersityGw(),
      startMinio(),
      startVersityGw({ tls: true }),
      startConnectProxy(),
    ]);
  });
  afterAll(() => Promise.all([versityGw, minio, tls, proxy].map((server) => server?.stop())));
  afterEach(() => vi.useRealTimers());

  const both = ['versitygw', 'minio'] as const;
  const peerOf = (name: (typeof both)[number]) => (name === 'minio' ? minio : versityGw);

  it.each(both)('%s: a wrong secret key is AccessDenied', async (name) => {
    const options = s3Options(peerOf(name), await peerOf(name).createBucket());
    const secretAccessKey = { reveal: () => canaries().token };
    const credentials = { kind: 'static' as const, accessKeyId: peerOf(name).accessKeyId, secretAccessKey };
    const errors = await everyError({ ...options, credentials });
    expect(codes(errors)).toEqual(new Set(['ACCESS_DENIED']));
    expect(shown(errors)).not.toContain(canaries().token);
  });

  it.each(both)('%s: an unknown access key is AccessDenied, and a session token is never shown', async (name) => {
    const options = s3Options(peerOf(name), await peerOf(name).createBucket());
    const [secretAccessKey, sessionToken] = [{ reveal: () => 'any' }, { reveal: () => canaries().token }];
    const credentials = { kind: 'static' as const, accessKeyId: 'nobody', secretAccessKey, sessionToken };
    const { put, get, list } = await everyError({ ...options, credentials });
    expect([put?.code, get?.code, list?.code]).toEqual(Array(3).fill('ACCESS_DENIED'));
    expect(shown({ put, get, list })).not.toContain(canaries().token);
  });

  it.each(both)('%s: a missing bucket is BucketNotFound, also for requests whose answer has no body', async (name) => {
    const errors = await everyError(s3Options(peerOf(name), 'no-such-bucket'));
    expect(codes(errors)).toEqual(new Set(['BUCKET_NOT_FOUND']));
    expect(errors.put?.message).toContain('no-such-bucket');
  });

  it('a wrong region is WrongRegion, and the message names the right one', async () => {
    const options = s3Options(minio, await minio.createBucket());
    const errors = await everyError({ ...options, region: 'us-west-2' });
    expect(codes(errors)).toEqual(new Set(['WRONG_REGION']));
    expect(errors.put?.message).toContain('eu-central-1');
  });

  it.each(both)('%s: a clock that is an hour off is ClockSkewed, and the store still tells its time', async (name) => {
    const options = s3Options(peerOf(name), await peerOf(name).createBucket());
    const realNow = Date.now();
    for (const offMs of [3_600_000, -3_600_000]) {
      for (const operation of ['put', 'get', 'head', 'list'] as const) {
        vi.useFakeTimers({ toFake: ['Date'], now: realNow + offMs });
        await using target = await openS3Target(options);
        const operations = {
          put: () => put(target, 'skew/put'),
          get: () => target.get('skew/get', null, never),
          head: () => target.head('skew/head', never),
          list: () => target.list('skew/', {}, never)[Symbol.asyncIterator]().next(),
        };
        expect((await caught(operations[operation]())).code).toBe('CLOCK_SKEWED');
      }
      vi.useFakeTimers({ toFake: ['Date'], now: realNow + offMs });
      await using target = await openS3Target(options);
      expect(Math.abs((await target.now(never)).getTime() - realNow)).toBeLessThan(120_000);
      vi.useRealTimers();
    }
  });

  it('no credentials at all are AccessDenied', async () => {
    const { credentials: _, ...options } = s3Options(versityGw, 'any');
    vi.stubEnv('AWS_EC2_METADATA_DISABLED', 'true');
    vi.stubEnv('AWS_SHARED_CREDENTIALS_FILE', '/nonexistent/credentials');
    vi.stubEnv('AWS_CONFIG_FILE', '/nonexistent/config');
    expect(codes(await everyError(options))).toEqual(new Set(['ACCESS_DENIED']));
    vi.unstubAllEnvs();
  });

  it('an endpoint where nobody listens is StoreUnavailable', async () => {
    const options = { ...s3Options(versityGw, 'any'), endpoint: `http://127.0.0.1:${await freePort()}` };
    expect(codes(await everyError(options))).toEqual(new Set(['STORE_UNAVAILABLE']));
  });

  it('a connection that breaks off is StoreUnavailable, and one that never answers can be cancelled', async () => {
    const answers = { breakOff: true };
    const server = createServer((socket) => {
      socket.on('error', () => socket.destroy());
      if (answers.breakOff) socket.once('data', () => socket.resetAndDestroy());
    }).listen(0, '127.0.0.1');
    const address = await new Promise<ReturnType<typeof server.address>>((resolve) =>
      server.once('listening', () => resolve(server.address())),
    );
    if (address === null || typeof address === 'string') throw new Error('no port');
    const options = { ...s3Options(versityGw, 'any'), endpoint: `http://127.0.0.1:${address.port}` };
    expect(codes(await everyError(options))).toEqual(new Set(['STORE_UNAVAILABLE']));

    answers.breakOff = false;
    await using target = await openS3Target(options);
    const reason = new Error('stop');
    const controller = new AbortController();
    setTimeout(() => controller.abort(reason), 50);
    await expect(target.get('x', null, controller.signal)).rejects.toBe(reason);
    server.close();
  });

  it('a certificate of a private authority is trusted when its CA file is given, and only then', async () => {
    const options = s3Options(tls, await tls.createBucket());
    await using target = await openS3Target(options);
    const bytes = new Uint8Array(randomBytes(3_000_000));
    await put(target, 'tls/object', bytes);
    expect(Buffer.compare(await target.get('tls/object', null, never), bytes)).toBe(0);

    const { caFile: _, ...untrusting } = options;
    expect(codes(await everyError(untrusting))).toEqual(new Set(['TLS_UNTRUSTED']));
    const otherName = { ...options, endpoint: options.endpoint?.replace('127.0.0.1', 'localhost') ?? '' };
    expect(codes(await everyError(otherName))).toEqual(new Set(['TLS_UNTRUSTED']));
    expect((await caught(openS3Target({ ...options, caFile: '/nonexistent.pem' }))).code).toBe('TLS_UNTRUSTED');
  });

  it('goes through a CONNECT proxy, whose refusal and absence are errors that hide its password', async () => {
    const options = s3Options(tls, await tls.createBucket());
    {
      await using target = await openS3Target({ ...options, proxy: proxy.url });
      const bytes = new Uint8Array(randomBytes(3_000_000));
      await put(target, 'proxied/object', bytes);
      expect(Buffer.compare(await target.get('proxied/object', null, never), bytes)).toBe(0);
    }
    await expect.poll(() => proxy.log()).toContain(`CONNECT 127.0.0.1:${new URL(tls.endpoint).port}`);

    const refused = await everyError({ ...options, proxy: proxy.urlWithWrongPassword });
    expect(refused.put?.message).toContain('407');
    expect([...codes(refused)]).toEqual(['STORE_UNAVAILABLE']);
    const gone = await everyError({
      ...options,
      proxy: `http://site:${canaries().password}@127.0.0.1:${await freePort()}`,
    });
    expect([...codes(gone)]).toEqual(['STORE_UNAVAILABLE']);
    expect(shown(gone)).not.toContain(canaries().password);
  });

  it('too many requests at once are Throttled; the wrappers slow down until all of them pass', async () => {
    await using narrow = await startVersityGw({ requestsMax: 2 });
    const options = { ...s3Options(narrow, await narrow.createBucket()), socketsMax: 64 };
    const bytes = new Uint8Array(randomBytes(1024 * 1024));
    {
      await using target = await openS3Target(options);
      const results = await Promise.all(Array.from({ length: 40 }, (_, i) => caught(put(target, `raw/${i}`, bytes))));
      expect(results.map(({ code }) => code)).toContain('STORE_THROTTLED');
    }
    const { target, limit, metrics } = wrapTarget(await openS3Target(options), {
      inFlightMax: 32,
      uploadBytesPerSecond: null,
      downloadBytesPerSecond: null,
      retry: { attemptsMax: 30 },
    });
    await Promise.all(Array.from({ length: 60 }, (_, i) => put(target, `wrapped/${i}`, bytes)));
    expect(metrics.put.errors.STORE_THROTTLED).toBeGreaterThan(0);
    expect(limit.current).toBeLessThan(32);
    await target[Symbol.asyncDispose]();
  });

  it('prefixes of one bucket do not see each other, nor what others put there', async () => {
    const bucket = await minio.createBucket();
    const open = (prefix: string) => openS3Target({ ...s3Options(minio, bucket), prefix });
    await using whole = await open('');
    await using one = await open('one');
    await using other = await open('one-more/');
    await put(one, 'a');
    await put(other, 'a');
    await put(whole, 'one.txt');
    const names: string[] = [];
    for await (const { name } of one.list('', {}, never)) names.push(name);
    expect(names).toEqual(['a']);
    expect((await caught(one.get('one.txt', null, never))).code).toBe('OBJECT_NOT_FOUND');
  });
});
