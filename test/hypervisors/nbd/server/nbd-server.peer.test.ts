import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { nbdNeeds, runNbdTool } from '../../../peers/nbd.ts';
import { peerFolder } from '../../../peers/server-process.ts';
import { Random } from '../../../random.ts';
import { MemoryExport, readOnly } from './memory-export.ts';
import { type Served, serve } from './served.ts';

const needs = await nbdNeeds();
const mebi = 1024 * 1024;
const capacityBytes = 24 * mebi;

describe.skipIf(needs !== null)(needs ?? 'our NBD server and real clients', () => {
  let folder: string;
  let content: Buffer;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'failkit-nbd-clients-'));
    content = randomBytes(capacityBytes, 1);
    content.fill(0, 4 * mebi, 12 * mebi);
    await writeFile(join(folder, 'image'), content);
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  it('nbdinfo lists the exports, what they can do, and where they are zero', async () => {
    await using served = await serve([
      readOnly(new MemoryExport('one', content)),
      new MemoryExport('two', Buffer.alloc(mebi)),
    ]);
    const listed: unknown = JSON.parse(await runNbdTool('nbdinfo', ['--list', '--json', served.uri()]));
    expect(listed).toMatchObject({
      exports: [
        { 'export-name': 'one', 'export-size': capacityBytes, is_read_only: true, can_multi_conn: true, can_df: true },
        {
          'export-name': 'two',
          'export-size': mebi,
          is_read_only: false,
          can_fua: true,
          can_zero: true,
          can_trim: true,
        },
      ],
    });
    const map: unknown = JSON.parse(await runNbdTool('nbdinfo', ['--map', '--json', served.uri('one')]));
    expect(map).toEqual([
      { offset: 0, length: 4 * mebi, type: 0, description: 'data' },
      { offset: 4 * mebi, length: 8 * mebi, type: 3, description: 'hole,zero' },
      { offset: 12 * mebi, length: 12 * mebi, type: 0, description: 'data' },
    ]);
  });

  it('nbdcopy reads it whole and writes it whole, over several connections', async () => {
    await using served = await serve([
      readOnly(new MemoryExport('one', content)),
      new MemoryExport('two', Buffer.alloc(capacityBytes, 9)),
    ]);
    await runNbdTool('nbdcopy', ['--connections=4', served.uri('one'), join(folder, 'copied')]);
    expect(Buffer.compare(await readFile(join(folder, 'copied')), content)).toBe(0);
    await runNbdTool('nbdcopy', ['--connections=4', '--flush', join(folder, 'copied'), served.uri('two')]);
    await runNbdTool('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', join(folder, 'image'), served.uri('two')]);
  });

  it('qemu-img converts into it and out of it, and compares', async () => {
    const disk = new MemoryExport('d', Buffer.alloc(capacityBytes));
    await using served = await serve([disk]);
    await runNbdTool('qemu-img', ['convert', '-n', '-f', 'raw', '-O', 'raw', join(folder, 'image'), served.uri()]);
    expect(Buffer.compare(disk.content, content)).toBe(0);
    await runNbdTool('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', served.uri(), join(folder, 'out.qcow2')]);
    await runNbdTool('qemu-img', ['compare', '-f', 'qcow2', '-F', 'raw', join(folder, 'out.qcow2'), served.uri()]);
  });

  it('qemu-io writes, zeroes, discards and flushes', async () => {
    const disk = new MemoryExport('d', Buffer.alloc(4 * mebi, 1));
    await using served = await serve([disk]);
    const commands = [
      'write -P 7 1M 64k',
      'write -f -P 8 512 512',
      'write -z 2M 128k',
      'write -z -u 3M 64k',
      'discard 3M 128k',
      'flush',
      'read -P 7 1M 64k',
    ];
    const said = await runNbdTool('qemu-io', [
      '-f',
      'raw',
      ...commands.flatMap((command) => ['-c', command]),
      served.uri(),
    ]);
    expect(said).not.toContain('failed');
    expect([disk.content[mebi], disk.content[512], disk.content[2 * mebi], disk.content[3 * mebi]]).toEqual([
      7, 8, 0, 0,
    ]);
    expect(disk.asked).toContain(`zeroes ${2 * mebi} ${128 * 1024} allocated`);
    expect(disk.asked).toContain(`zeroes ${3 * mebi} ${64 * 1024}`);
    expect(disk.asked).toContain('flush');
  });

  it('a write that waits is waited for, and an error reaches qemu by its number', async () => {
    const disk = new MemoryExport('d', Buffer.alloc(4 * mebi));
    disk.gate = (what) => (what.startsWith('write') ? sleep(2_500) : Promise.resolve());
    await using served = await serve([disk], { bounds: { stallMs: 500 } });
    expect(await runNbdTool('qemu-io', ['-f', 'raw', '-c', 'write -P 3 0 64k', served.uri()])).toContain('wrote 65536');
    expect(disk.content[0]).toBe(3);
    disk.gate = async (what) => {
      if (what.startsWith('read')) throw new Error('bad');
    };
    const failed: unknown = await runNbdTool('qemu-io', ['-f', 'raw', '-c', 'read 1M 64k', served.uri()]).catch(
      (error: unknown) => error,
    );
    expect(String(Object(failed).stdout) + String(failed)).toContain('Input/output error');
  });

  it('clients that are killed in the middle leave nothing behind', async () => {
    const disk = new MemoryExport('d', randomBytes(capacityBytes, 3));
    disk.gate = (_what, signal) => sleep(20, undefined, { signal });
    await using served = await serve([disk]);
    const before = await openFiles();
    for (const args of [
      [served.uri(), 'null:'],
      [join(folder, 'image'), served.uri()],
    ]) {
      const client = spawn(join(peerFolder('nbd'), 'nbdcopy'), ['--connections=2', ...args], { stdio: 'ignore' });
      await expect.poll(() => served.server.heldBytes, { timeout: 20_000, interval: 2 }).toBeGreaterThan(0);
      await kill(client);
      await expect.poll(() => served.server.connections, { timeout: 20_000 }).toBe(0);
      expect(served.server.heldBytes).toBe(0);
    }
    expect(await openFiles()).toBe(before);
    disk.gate = async () => undefined;
    await runNbdTool('nbdinfo', ['--size', served.uri()]);
  });

  const kernel = kernelNeeds();
  it.skipIf(kernel !== null)(
    `the kernel's client mounts it${kernel === null ? '' : ` (needs ${kernel})`}`,
    async () => {
      await using served = await serve([readOnly(new MemoryExport('one', content))]);
      await readThroughKernel(served, content);
    },
  );
});

function kernelNeeds(): string | null {
  if (!existsSync('/dev/nbd0')) return 'the nbd kernel module';
  return existsSync('/usr/sbin/nbd-client') ? null : 'nbd-client';
}

async function readThroughKernel(served: Served, expected: Buffer): Promise<void> {
  await run('/usr/sbin/nbd-client', ['-unix', served.socket, '/dev/nbd0', '-N', 'one', '-readonly']);
  try {
    expect(Buffer.compare(await readFile('/dev/nbd0'), expected)).toBe(0);
  } finally {
    await run('/usr/sbin/nbd-client', ['-d', '/dev/nbd0']);
  }
}

async function run(program: string, args: readonly string[]): Promise<void> {
  const child = spawn(program, args, { stdio: 'inherit' });
  const code = await new Promise((resolve) => child.once('close', resolve));
  expect(code, program).toBe(0);
}

async function kill(child: ChildProcess): Promise<void> {
  const ended = new Promise((resolve) => child.once('close', resolve));
  child.kill('SIGKILL');
  await ended;
}

async function openFiles(): Promise<number> {
  return (await readdir('/proc/self/fd')).length;
}

function randomBytes(length: number, seed: number): Buffer {
  const random = new Random(seed);
  const bytes = Buffer.alloc(length);
  for (let at = 0; at + 4 <= length; at += 4) bytes.writeUInt32LE(random.below(2 ** 32), at);
  return bytes;
}
