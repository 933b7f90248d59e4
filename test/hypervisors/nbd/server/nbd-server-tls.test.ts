import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { NbdDisk } from '../../../../hypervisors/nbd/nbd-disk.ts';
import { NbdExportRefused } from '../../../../hypervisors/nbd/nbd-errors.ts';
import type { NbdTls } from '../../../../hypervisors/nbd/nbd-socket.ts';
import { parseNbdUri } from '../../../../hypervisors/nbd/nbd-uri.ts';
import { NbdListenFailed } from '../../../../hypervisors/nbd/server/listen.ts';
import type { NbdServerTls } from '../../../../hypervisors/nbd/server/server-tls.ts';
import { makeNbdCertificates, type NbdCertificates } from '../nbd-certificates.ts';
import { readAll } from '../nbd-reading.ts';
import { be } from '../scripted-server.ts';
import { MemoryExport } from './memory-export.ts';
import { RawClient } from './raw-client.ts';
import { type Served, serve } from './served.ts';

const never = new AbortController().signal;
const mebi = 1024 * 1024;
let certificates: NbdCertificates;
let tls: NbdServerTls;
beforeAll(async () => {
  certificates = await makeNbdCertificates();
  const text = (name: string) => readFile(join(certificates.serverFolder, name), 'utf8');
  tls = { certificate: await text('server-cert.pem'), key: await text('server-key.pem'), clientCa: null };
});
afterAll(() => certificates[Symbol.asyncDispose]());

const secured = (served: Served) => served.uri().replace('nbd+unix', 'nbds+unix');
const open = (uri: string, client: Partial<NbdTls> = {}) =>
  NbdDisk.open(parseNbdUri(uri), { tls: { ca: certificates.ca, client: null, ...client } }, never);

it('reads and writes over TLS, and tells nothing without it', async () => {
  const disk = new MemoryExport('secret name', Buffer.alloc(4 * mebi, 1));
  await using served = await serve([disk], { tls });
  await using client = await open(secured(served));
  const bytes = Buffer.alloc(3 * mebi, 5);
  await client.write(100, bytes, never);
  expect(Buffer.compare(await readAll(client), disk.content)).toBe(0);
  await expect(open(served.uri())).rejects.toThrow(NbdExportRefused);
  using raw = await RawClient.connect(served.socket);
  await raw.read(18);
  raw.send(be(32, 3));
  for (const number of [3, 6, 7, 8, 10]) {
    raw.option(number);
    expect((await raw.optionReply()).type).toBe(0x8000_0005);
  }
  raw.option(1);
  await raw.hungUpOn();
});

it('bytes in plain behind the question for TLS are not believed', async () => {
  await using served = await serve([new MemoryExport('d', Buffer.alloc(mebi))], { tls });
  using raw = await RawClient.connect(served.socket);
  await raw.read(18);
  raw.send(be(32, 3), Buffer.from('IHAVEOPT'), be(32, 5, 0), Buffer.from('IHAVEOPT'), be(32, 3, 0));
  await raw.hungUpOn();
  expect(served.events.join()).toContain('bytes in plain after it asked for TLS');
});

it('with an authority for clients only those that it signed get in', async () => {
  await using served = await serve([new MemoryExport('d', Buffer.alloc(mebi))], {
    tls: { ...tls, clientCa: certificates.ca },
  });
  for (const client of [null, certificates.otherClient])
    await expect(open(secured(served), { client })).rejects.toMatchObject({
      code: expect.stringMatching(/^NBD_(TLS_UNTRUSTED|CONNECTION_LOST)$/),
    });
  await using disk = await open(secured(served), { client: certificates.client });
  await disk.read(0, new Uint8Array(512), never);
  await expect.poll(() => served.server.connections).toBe(1);
  expect(served.events.filter((event) => event.startsWith('connected'))).toHaveLength(1);
});

it('a client that begins TLS and says no more is given up, and one that talks nonsense at once', async () => {
  await using served = await serve([new MemoryExport('d', Buffer.alloc(mebi))], { tls, bounds: { handshakeMs: 400 } });
  const start = async () => {
    const raw = await RawClient.connect(served.socket);
    await raw.read(18);
    raw.send(be(32, 3));
    raw.option(5);
    await raw.optionReply();
    return raw;
  };
  using silent = await start();
  using nonsense = await start();
  nonsense.send(Buffer.from('GET / HTTP/1.1\r\n\r\n'));
  await Promise.all([silent.hungUpOn(), nonsense.hungUpOn()]);
  await sleep(10);
  expect(served.server.connections).toBe(0);
  expect(served.events.join()).toContain('no handshake within 0.4 s');
});

it('a server without a certificate says so, and one whose key is another one does not start', async () => {
  await using served = await serve([new MemoryExport('d', Buffer.alloc(mebi))]);
  await expect(open(secured(served))).rejects.toThrow('the server has no TLS');
  const wrong = { ...tls, key: certificates.client.key };
  await expect(serve([], { tls: wrong })).rejects.toThrow(NbdListenFailed);
});
