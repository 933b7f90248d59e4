/** Files of a host through SSH: OpenSSH's own server, and a chain that Windows wrote. */
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import * as z from 'zod';
import { HypervHosts } from '../../../hypervisors/hyperv/hyperv-hosts.ts';
import { type SshAddress, sshHost } from '../../../hypervisors/hyperv/ssh-host.ts';
import { openChain } from '../../../hypervisors/vhdx/image-chain.ts';
import { type SshServer, sshdNeeds, startSshd } from '../../peers/sshd.ts';
import { contentOf } from '../vhdx/read-all.ts';
import { published, sha256, windowsFiles } from '../vhdx/windows-files.ts';

const needs = await sshdNeeds();
const never = new AbortController().signal;

describe.skipIf(needs !== null)(`a host through SSH (${needs ?? 'a real OpenSSH server'})`, () => {
  let folder: string;
  let server: SshServer;
  let address: SshAddress;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'failkit-ssh-host-'));
    for (const [name, bytes] of Object.entries(windowsFiles())) await writeFile(join(folder, name), bytes);
    server = await startSshd(folder);
    const privateKey = await readFile(server.keyFile, 'utf8');
    address = {
      host: '127.0.0.1',
      port: server.port,
      user: server.user,
      privateKey: { reveal: () => privateKey },
      hostKey: server.hostKey,
    };
  });
  afterAll(async () => {
    await server?.[Symbol.asyncDispose]();
    await rm(folder, { recursive: true, force: true });
  });

  it('a chain of Windows 10 is read as what was published of it', async () => {
    await using hosts = new HypervHosts();
    const { openFile } = await hosts.open(sshHost('hv', address), never);
    await using chain = await openChain(join(folder, 'diff.vhdx'), { openFile, onWindows: false }, never);
    if (chain === null) throw new Error('it is there');
    expect([chain.layers.length, sha256(await contentOf(chain))]).toEqual([2, published.merged]);
    expect(await openFile(join(folder, 'absent.vhdx'), never)).toBe(null);
  });

  it('a connection that breaks fails what is under way by name, and is opened anew for what comes next', async () => {
    await using broken = await breakable(server.port);
    const host = sshHost('hv', { ...address, port: broken.port });
    await using hosts = new HypervHosts();
    const first = await hosts.open(host, never);
    await using file = await first.openFile(join(folder, 'diff.vhdx'), never);
    broken.cut();
    await expect.poll(() => first.isLost()).toBe(true);
    const into = new Uint8Array(4096);
    await expect(file?.read([{ offset: 0, into }], never)).rejects.toMatchObject({ code: 'SOURCE_UNREADABLE' });
    await expect(first.openFile(join(folder, 'diff.vhdx'), never)).rejects.toMatchObject({
      code: 'HYPERV_UNREACHABLE',
    });
    await expect(first.client.call('hello', {}, z.unknown(), never)).rejects.toMatchObject({
      code: 'HYPERV_UNREACHABLE',
    });
    const second = await hosts.open(host, never);
    await using again = await second.openFile(join(folder, 'diff.vhdx'), never);
    await again?.read([{ offset: 0, into }], never);
    expect(Buffer.from(into.subarray(0, 8)).toString()).toBe('vhdxfile');
  });
});

/** A way to the port that can be cut. */
async function breakable(port: number) {
  const sockets = new Set<Socket>();
  const relay = createServer((near) => {
    const far = connect(port, '127.0.0.1');
    for (const [socket, other] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(socket);
      socket.on('error', () => other.destroy());
      socket.on('close', () => other.destroy());
      socket.pipe(other);
    }
  });
  relay.listen(0, '127.0.0.1');
  await once(relay, 'listening');
  const cut = () => {
    for (const socket of sockets) socket.destroy();
    sockets.clear();
  };
  return {
    port: (relay.address() as AddressInfo).port,
    cut,
    async [Symbol.asyncDispose]() {
      cut();
      relay.close();
    },
  };
}
