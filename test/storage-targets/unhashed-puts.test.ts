import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { openS3Target } from '../../storage-targets/s3.ts';
import type { StorageTarget } from '../../storage-targets/storage-target.ts';
import { canaries } from '../canary.ts';

const never = new AbortController().signal;
const large = new Uint8Array(2 ** 20).fill(7);
const small = large.subarray(0, 1000);
const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest();
const hashOf = (bytes: Uint8Array) => sha256(bytes).toString('hex');
const unsigned = 'UNSIGNED-PAYLOAD';

interface Policy {
  readonly namesChecksums: boolean;
  readonly refusesUnsigned: boolean;
}

/** No server that can be had refuses unsigned payloads, as a bucket policy at AWS can. */
class Store {
  readonly payloadHashes: string[] = [];
  readonly #server: Server;

  constructor({ namesChecksums, refusesUnsigned }: Policy) {
    this.#server = createServer(async (request, response) => {
      const payloadHash = String(request.headers['x-amz-content-sha256']);
      const checksum = String(request.headers['x-amz-checksum-sha256']);
      expect(String(request.headers.authorization)).toMatch(/SignedHeaders=[^,]*x-amz-checksum-sha256/);
      this.payloadHashes.push(payloadHash);
      await request.resume().toArray();
      const refused = refusesUnsigned && payloadHash === unsigned;
      if (namesChecksums && !refused) response.setHeader('x-amz-checksum-sha256', checksum);
      response.writeHead(refused ? 403 : 200);
      response.end(refused ? '<Error><Code>AccessDenied</Code><Message>no</Message></Error>' : '');
    });
  }

  async open(): Promise<StorageTarget> {
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
    const endpoint = `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
    const secretAccessKey = { reveal: () => canaries().secretAccessKey };
    const credentials = { kind: 'static' as const, accessKeyId: 'key', secretAccessKey };
    return await openS3Target({ bucket: 'b', region: 'r', endpoint, pathStyle: true, credentials });
  }

  stop(): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }
}

describe('the hash of a payload', () => {
  let store: Store;
  afterEach(() => store.stop());

  async function hashesOf(policy: Policy, bodies: readonly Uint8Array[]): Promise<readonly string[]> {
    store = new Store(policy);
    await using target = await store.open();
    for (const [i, bytes] of bodies.entries())
      await target.putIfAbsent(`put/${i}`, bytes, { sha256: sha256(bytes) }, never);
    return store.payloadHashes;
  }

  it('is left out for large objects once the store has named the checksum of an earlier one', async () => {
    const hashes = await hashesOf({ namesChecksums: true, refusesUnsigned: false }, [large, large, small]);
    expect(hashes).toEqual([hashOf(large), unsigned, hashOf(small)]);
  });

  it('is signed for a store that knows no checksums', async () => {
    const hashes = await hashesOf({ namesChecksums: false, refusesUnsigned: false }, [large, large]);
    expect(hashes).toEqual([hashOf(large), hashOf(large)]);
  });

  it('is signed again after a bucket has refused a put without it', async () => {
    const hashes = await hashesOf({ namesChecksums: true, refusesUnsigned: true }, [large, large, large]);
    expect(hashes).toEqual([hashOf(large), unsigned, hashOf(large), hashOf(large)]);
  });
});
