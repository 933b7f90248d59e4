import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { minioNeeds, type S3Peer, startMinio } from '../peers/s3.ts';
import { changeDisk, machineName, makeSite, type Site, sha256OfDisks, sha256OfRestored } from './site.ts';

/** A bucket on the customer's own server, whose certificate is signed by the customer's own authority. */

const needs = await minioNeeds();

describe.skipIf(needs !== null)(needs ?? 'a store behind a private certificate authority', () => {
  let server: S3Peer;
  let site: Site;
  beforeAll(async () => {
    server = await startMinio({ tls: true });
    const bucket = await server.createBucket();
    const kms = { region: 'none', credentials: { accessKeyId: 'none', secretAccessKey: server.secretAccessKey } };
    const peers = {
      s3: server,
      s3Endpoint: server.endpoint,
      bucket,
      kms,
      kmsEndpoint: 'http://127.0.0.1:1',
      keyId: 'none',
    };
    site = await makeSite(peers);
    await site.configure({ keys: { provider: 'local-key', file: 'local.key' } });
    expect(server.endpoint).toMatch(/^https:/);
  });
  afterAll(async () => {
    await site?.[Symbol.asyncDispose]();
    await server?.stop();
  });

  it('is used from init to restore, with the local key of a site without KMS', async () => {
    const kit = join(site.folder, 'kit');
    for (const args of [['init', '--kit', kit], ['seed']]) expect(await failed(args)).toBe('');
    await changeDisk(site, 'data', 1);
    const to = join(site.folder, 'out');
    for (const args of [['sync'], ['points'], ['restore', machineName, '--to', to]])
      expect(await failed(args)).toBe('');
    expect(await sha256OfRestored(to)).toEqual(await sha256OfDisks(site));
  });

  async function failed(args: readonly string[]): Promise<string> {
    const { exitCode, stderr } = await site.failkit(...args);
    return exitCode === 0 ? '' : stderr;
  }
});
