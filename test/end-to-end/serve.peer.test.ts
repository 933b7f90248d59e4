import { type ChildProcess, spawn } from 'node:child_process';
import { createCipheriv, createHash, randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, open, readdir, readFile, readlink, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { makeNbdCertificates } from '../hypervisors/nbd/nbd-certificates.ts';
import { nbdNeeds, runNbdTool } from '../peers/nbd.ts';
import { peerFolder } from '../peers/server-process.ts';
import { type FailkitProcess, startFailkit } from './failkit-process.ts';

const needs = await nbdNeeds();
const mebibyte = 2 ** 20;
const promisedBytes = 512 * mebibyte;
/** Neither is a multiple of the block size. */
const disks = { system: 192 * mebibyte + 512, 'my data': 40 * mebibyte + 4096 } as const;
type Label = keyof typeof disks;

interface Announced {
  readonly point: number;
  readonly exports: readonly { readonly label: string; readonly capacityBytes: number; readonly uri: string }[];
}

describe.skipIf(needs !== null)(needs ?? 'failkit serve, as operators run it', () => {
  let folder: string;
  const at = (label: Label) => join(folder, `${label}.raw`);
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'failkit-serve-'));
    await mkdir(join(folder, 'bucket'));
    for (const label of Object.keys(disks) as Label[]) await makeDisk(at(label), disks[label]);
    const list = (Object.keys(disks) as Label[]).map((label) => `{ label: "${label}", path: "${label}.raw" }`);
    await writeFile(
      join(folder, 'failkit.yaml'),
      `repository: { target: filesystem, directory: bucket }
keys: { provider: local-key, file: local.key }
state: state
machines: [{ name: web-1, source: { type: image, disks: [${list.join(', ')}] } }]
`,
    );
    for (const args of [['init', '--kit', 'kit'], ['seed']]) {
      const { exitCode, stderr } = await startFailkit(args, { folder }).ended;
      expect([exitCode, exitCode === 0 ? '' : stderr]).toEqual([0, '']);
    }
  });
  const started: FailkitProcess[] = [];
  afterAll(async () => {
    // Those whose test failed before it ended them.
    for (const failkit of started) failkit.kill('SIGKILL');
    await rm(folder, { recursive: true, force: true });
  });

  const start = async (...args: string[]) => {
    const failkit = startFailkit(['serve', 'web-1', '--json', ...args], { folder });
    started.push(failkit);
    const announced: Announced = JSON.parse(await failkit.firstLine);
    return { failkit, announced, uri: (label: Label) => uriOf(announced, label) };
  };

  it('every disk reads as it was, by nbdcopy and qemu-img, within the memory it is allowed; Ctrl-C ends it in order', async () => {
    const { failkit, announced, uri } = await start();
    expect(announced.exports.map(({ label, capacityBytes }) => [label, capacityBytes])).toEqual(Object.entries(disks));
    for (const label of Object.keys(disks) as Label[]) {
      const copy = join(folder, 'copy');
      await runNbdTool('nbdcopy', [uri(label), copy]);
      expect(await sha256(copy, disks[label])).toBe(await sha256(at(label), disks[label]));
      await runNbdTool('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', at(label), uri(label)]);
      await rm(copy);
    }
    expect(await peakOf(failkit.pid)).toBeLessThanOrEqual(promisedBytes);
    const socket = socketOf(uri('system'));
    expect(existsSync(socket)).toBe(true);
    failkit.kill('SIGINT');
    const { exitCode, stdout } = await failkit.ended;
    expect(exitCode).toBe(0);
    const last: unknown = JSON.parse(stdout.slice(stdout.indexOf('\n')));
    expect(last).toMatchObject({ machine: 'web-1', point: announced.point });
    expect(existsSync(dirname(socket))).toBe(false);
  });

  it('one disk is the default export; a small cache is enough; TERM ends it in order, too', async () => {
    const socket = join(folder, 'private', 'socket');
    const { failkit, announced } = await start(
      '--disk',
      'my data',
      '--socket',
      socket,
      '--cache-mib',
      '8',
      '--point',
      'latest',
    );
    expect(announced.exports).toHaveLength(1);
    await runNbdTool('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', at('my data'), `nbd+unix:///?socket=${socket}`]);
    failkit.kill('SIGTERM');
    expect((await failkit.ended).exitCode).toBe(0);
    expect(existsSync(socket)).toBe(false);
  });

  it('clients that are killed leave nothing behind', async () => {
    const { failkit, uri } = await start();
    const before = await openSockets(failkit.pid);
    for (let i = 0; i < 5; i++) {
      const client = spawn(join(peerFolder('nbd'), 'nbdcopy'), ['--connections=3', uri('system'), 'null:'], {
        stdio: 'ignore',
      });
      await expect.poll(() => openSockets(failkit.pid), { timeout: 20_000, interval: 2 }).toBeGreaterThan(before);
      await kill(client);
    }
    await expect.poll(() => openSockets(failkit.pid), { timeout: 20_000 }).toBeLessThanOrEqual(before);
    await runNbdTool('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', at('my data'), uri('my data')]);
    failkit.kill('SIGINT');
    expect((await failkit.ended).exitCode).toBe(0);
  });

  it('over TCP with TLS only those get in who have a certificate', async () => {
    await using certificates = await makeNbdCertificates();
    const { serverFolder } = certificates;
    await writeFile(join(folder, 'ca.pem'), certificates.ca);
    await mkdir(join(folder, 'client'));
    await writeFile(join(folder, 'client/ca-cert.pem'), certificates.ca);
    await writeFile(join(folder, 'client/client-cert.pem'), certificates.client.certificate);
    await writeFile(join(folder, 'client/client-key.pem'), certificates.client.key);
    const tls = [
      '--tls-cert',
      join(serverFolder, 'server-cert.pem'),
      '--tls-key',
      join(serverFolder, 'server-key.pem'),
    ];
    const { failkit, announced } = await start(
      '--disk',
      'my data',
      '--listen',
      '127.0.0.1:0',
      ...tls,
      '--tls-client-ca',
      'ca.pem',
    );
    const port = /^nbds:\/\/127\.0\.0\.1:(\d+)\/$/.exec(announced.exports[0]?.uri ?? '')?.[1] ?? '';
    const image = `driver=nbd,server.type=inet,server.host=127.0.0.1,server.port=${port}`;
    const credentials = (more: string) => [
      '--object',
      `tls-creds-x509,id=t,endpoint=client,dir=${join(folder, 'client')}${more}`,
    ];
    const compare = ['compare', '--image-opts', ...credentials('')];
    await runNbdTool('qemu-img', [...compare, `driver=raw,file.filename=${at('my data')}`, `${image},tls-creds=t`]);
    await expect(runNbdTool('qemu-img', ['info', '--image-opts', image])).rejects.toThrow();
    failkit.kill('SIGINT');
    expect((await failkit.ended).exitCode).toBe(0);
  });

  it('what is damaged fails with an I/O error, is said aloud by name, and the rest is served', async () => {
    const segment = await largestObject(join(folder, 'bucket'));
    const bytes = await readFile(segment);
    await chmod(segment, 0o600);
    const middle = Math.floor(bytes.length / 2);
    const spoiled = Buffer.from(bytes);
    spoiled[middle] = (spoiled[middle] ?? 0) ^ 1;
    await writeFile(segment, spoiled);
    const { failkit, uri } = await start();
    const failures = await Promise.allSettled(
      (Object.keys(disks) as Label[]).map((label) =>
        runNbdTool('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', at(label), uri(label)]),
      ),
    );
    expect(failures.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
    failkit.kill('SIGINT');
    const { exitCode, stderr } = await failkit.ended;
    expect(exitCode).toBe(0);
    const object = segment.slice(join(folder, 'bucket').length + 1);
    expect(stderr.replace(/\s+/g, ' ')).toMatch(new RegExp(`: blocks \\d+ to \\d+ are damaged: ${object} record \\d+`));
    await writeFile(segment, bytes);
  });

  it.for([
    [['--listen', '0.0.0.0:0'], 2, /NBD_LISTEN_FAILED/],
    [['--listen', 'nowhere'], 2, /USAGE/],
    [['--tls-cert', 'failkit.yaml'], 2, /NBD_LISTEN_FAILED/],
    [['--tls-cert', 'failkit.yaml', '--tls-key', 'failkit.yaml'], 2, /NBD_LISTEN_FAILED/],
    [['--socket', 'a', '--listen', '127.0.0.1:0'], 2, /USAGE/],
    [['--cache-mib', '1'], 2, /USAGE/],
    [['--cache-mib', '99999999'], 2, /USAGE/],
    [['--disk', 'none'], 6, /REPLICA_NOT_FOUND/],
    [['--point', '999'], 6, /REPLICA_NOT_FOUND/],
  ] as const)('%j is refused in words', async ([args, exit, code]) => {
    const { exitCode, stdout, stderr } = await startFailkit(['serve', 'web-1', '--json', ...args], { folder }).ended;
    expect(exitCode).toBe(exit);
    expect(stdout).toMatch(code);
    expect(stderr).not.toMatch(/^\s+at /m);
  });
});

function uriOf({ exports }: Announced, label: string): string {
  const found = exports.find((each) => each.label === label);
  if (found === undefined) throw new Error(`no export ${label}`);
  return found.uri;
}

function socketOf(uri: string): string {
  return new URL(uri).searchParams.get('socket') ?? '';
}

/** Noise, text and nothing, in stretches of 1 MiB. */
async function makeDisk(path: string, bytes: number): Promise<void> {
  await using file = await open(path, 'w');
  await file.truncate(bytes);
  const stream = createCipheriv('aes-256-ctr', randomBytes(32), randomBytes(16));
  for (let at = 0; at < bytes; at += mebibyte) {
    const length = Math.min(mebibyte, bytes - at);
    const kind = (at / mebibyte) % 4;
    if (kind < 2) await file.write(stream.update(Buffer.alloc(length)), 0, length, at);
    else if (kind === 2) await file.write(Buffer.alloc(length, `stretch ${at} of a disk\n`), 0, length, at);
  }
  const longAgo = new Date(Date.now() - 3_600_000);
  await file.utimes(longAgo, longAgo);
}

async function sha256(path: string, bytes: number): Promise<string> {
  return createHash('sha256')
    .update((await readFile(path)).subarray(0, bytes))
    .digest('hex');
}

async function peakOf(pid: number): Promise<number> {
  return Number(/^VmHWM:\s+(\d+) kB$/m.exec(await readFile(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) * 1024;
}

/** Not all of its files: threads that start meanwhile have some of their own. */
async function openSockets(pid: number): Promise<number> {
  const files = await readdir(`/proc/${pid}/fd`);
  const links = await Promise.all(files.map((file) => readlink(`/proc/${pid}/fd/${file}`).catch(() => '')));
  return links.filter((link) => link.startsWith('socket:')).length;
}

async function kill(child: ChildProcess): Promise<void> {
  const ended = new Promise((resolve) => child.once('close', resolve));
  child.kill('SIGKILL');
  await ended;
}

async function largestObject(bucket: string): Promise<string> {
  const entries = await readdir(bucket, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  const sizes = await Promise.all(files.map(async (file) => ({ file, bytes: (await readFile(file)).length })));
  return sizes.reduce((largest, each) => (each.bytes > largest.bytes ? each : largest)).file;
}
