import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { baseAllocation, NbdDisk } from '../../../hypervisors/nbd/nbd-disk.ts';
import { NbdExportRefused, NbdTlsUntrusted } from '../../../hypervisors/nbd/nbd-errors.ts';
import type { NbdTls } from '../../../hypervisors/nbd/nbd-socket.ts';
import { parseNbdUri } from '../../../hypervisors/nbd/nbd-uri.ts';
import { type NbdPeer, type NbdPeerOptions, nbdNeeds, startNbdkit, startQemuNbd } from '../../peers/nbd.ts';
import { makeNbdCertificates, type NbdCertificates } from './nbd-certificates.ts';
import { collect, readAll } from './nbd-reading.ts';

const needs = await nbdNeeds();
const never = new AbortController().signal;
const tcp: NbdPeerOptions = { tcp: true, tls: true };

describe.skipIf(needs !== null)(needs ?? 'NBD over TLS', () => {
  let certificates: NbdCertificates;
  let folder: string;
  let image: string;
  const content = Buffer.from(Array.from({ length: 3_000_000 - (3_000_000 % 512) }, (_, i) => (i * 7) % 253));

  beforeAll(async () => {
    certificates = await makeNbdCertificates();
    folder = await mkdtemp(join(tmpdir(), 'failkit-nbd-tls-image-'));
    image = join(folder, 'image');
    await writeFile(image, content);
  });
  afterAll(async () => {
    await certificates[Symbol.asyncDispose]();
    await rm(folder, { recursive: true, force: true });
  });

  const qemu = (
    certificateFolder: string,
    more: { readonly verifyPeer?: boolean; readonly options?: NbdPeerOptions } = {},
  ) => {
    const peer = `verify-peer=${more.verifyPeer ? 'on' : 'off'}`;
    const credentials = `tls-creds-x509,id=t,endpoint=server,sanity-check=off,${peer},dir=${certificateFolder}`;
    return startQemuNbd(['--object', credentials, '--tls-creds=t', '--format=raw', image], more.options ?? tcp);
  };
  const nbdkit = (certificateFolder: string, options = tcp) =>
    startNbdkit(['--tls=require', `--tls-certificates=${certificateFolder}`, 'file', image], options);
  const open = (server: NbdPeer, tls: Partial<NbdTls> = {}, uri = server.uri) =>
    NbdDisk.open(parseNbdUri(uri), { tls: { ca: certificates.ca, client: null, ...tls } }, never);
  const refused = async (server: NbdPeer, says: RegExp, tls: Partial<NbdTls> = {}, uri = server.uri) => {
    const opened = open(server, tls, uri);
    await expect(opened).rejects.toThrow(NbdTlsUntrusted);
    await expect(opened).rejects.toThrow(says);
  };

  it.for([
    ['qemu-nbd', tcp],
    ['qemu-nbd', { tls: true }],
    ['nbdkit', tcp],
    ['nbdkit', { tls: true }],
  ] as const)('%s %o: verified, read, written', async ([kind, options]) => {
    const { serverFolder } = certificates;
    await using server = await (kind === 'nbdkit' ? nbdkit(serverFolder, options) : qemu(serverFolder, { options }));
    const tls = { ca: certificates.ca, client: null };
    await using disk = await NbdDisk.open(parseNbdUri(server.uri), { contexts: [baseAllocation], tls }, never);
    expect(Buffer.compare(await readAll(disk), content)).toBe(0);
    expect((await collect(disk.extents(baseAllocation, 0, content.length, never))).length).toBeGreaterThan(0);
    await disk.write(512, content.subarray(512, 1_000_000 - (1_000_000 % 512)), never);
    await disk.flush(never);
    expect(Buffer.compare(await readAll(disk), content)).toBe(0);
  });

  it('a server that nobody we trust has signed is refused', async () => {
    await using server = await qemu(certificates.serverFolder);
    await refused(server, /no trusted TLS with 127\.0\.0\.1 \((UNABLE|SELF|DEPTH)/, { ca: certificates.otherCa });
    await refused(server, /no trusted TLS with 127\.0\.0\.1 \((UNABLE|SELF|DEPTH)/, { ca: null });
  });

  it('a certificate for another name is refused, and accepted under that name', async () => {
    await using server = await qemu(certificates.otherNameFolder);
    await refused(server, /ERR_TLS_CERT_ALTNAME_INVALID.*say it as tls-hostname/);
    await using disk = await open(server, {}, `${server.uri}?tls-hostname=other.example`);
    expect(disk.capacityBytes).toBe(content.length);
  });

  it('a right certificate under a wrong tls-hostname is refused', async () => {
    await using server = await nbdkit(certificates.serverFolder);
    await refused(server, /ERR_TLS_CERT_ALTNAME_INVALID/, {}, `${server.uri}?tls-hostname=other.example`);
  });

  it.for(['qemu-nbd', 'nbdkit'])('an expired certificate is refused (%s)', async (kind) => {
    await using server = await (kind === 'nbdkit' ? nbdkit : qemu)(certificates.expiredFolder);
    await refused(server, /CERT_HAS_EXPIRED.*renew/);
  });

  it('a server without TLS is refused', async () => {
    await using kit = await startNbdkit(['file', image], tcp);
    await refused(kit, /the server has no TLS/);
    await using plain = await startQemuNbd(['--format=raw', image], tcp);
    await refused(plain, /the server has no TLS/);
  });

  it('a server that insists on TLS is not spoken to in plain', async () => {
    for (const start of [qemu, nbdkit]) {
      await using server = await start(certificates.serverFolder);
      const opened = open(server, {}, server.uri.replace('nbds:', 'nbd:'));
      await expect(opened).rejects.toThrow(NbdExportRefused);
      await expect(opened).rejects.toThrow(/insists on TLS/);
    }
  });

  it('a server that wants to know us accepts our certificate, and no other', async () => {
    await using server = await qemu(certificates.serverFolder, { verifyPeer: true });
    await using disk = await open(server, { client: certificates.client });
    expect(Buffer.compare(await readAll(disk), content)).toBe(0);
    await expect(open(server)).rejects.toMatchObject({
      code: expect.stringMatching(/^NBD_(TLS_UNTRUSTED|CONNECTION_LOST)$/),
    });
    await expect(open(server, { client: certificates.otherClient })).rejects.toMatchObject({
      code: expect.stringMatching(/^NBD_(TLS_UNTRUSTED|CONNECTION_LOST)$/),
    });
  });

  it('aborts and a lost server are the same under TLS', async () => {
    await using server = await nbdkit(certificates.serverFolder);
    await using disk = await open(server);
    const controller = new AbortController();
    const into = new Uint8Array(content.length);
    const reads = [disk.read(0, into, controller.signal), disk.read(0, new Uint8Array(content.length), never)];
    controller.abort(new Error('no more'));
    const [first, second] = await Promise.allSettled(reads);
    expect(first).toMatchObject({ status: 'rejected', reason: { message: 'no more' } });
    expect(second).toMatchObject({ status: 'fulfilled' });
    server.signal('SIGSTOP');
    const late = expect(disk.read(0, into, never)).rejects.toMatchObject({ code: 'NBD_CONNECTION_LOST' });
    await server.stop();
    await late;
    await expect(disk.read(0, into, never)).rejects.toMatchObject({ code: 'NBD_CONNECTION_LOST' });
  });
});
