import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { listNbdContexts, nbdTimeouts } from '../../../hypervisors/nbd/nbd-connection.ts';
import { baseAllocation, NbdDisk, readsAsZero } from '../../../hypervisors/nbd/nbd-disk.ts';
import {
  NbdConnectionLost,
  NbdExportRefused,
  NbdTimedOut,
  NbdUnsupported,
} from '../../../hypervisors/nbd/nbd-errors.ts';
import { parseNbdUri } from '../../../hypervisors/nbd/nbd-uri.ts';
import { nbdNeeds, runNbdTool, startNbdkit, startQemuNbd } from '../../peers/nbd.ts';
import { Random } from '../../random.ts';
import { collect, readAll } from './nbd-reading.ts';

const needs = await nbdNeeds();
const never = new AbortController().signal;
const capacityBytes = 8 * 1024 * 1024;
const block = 64 * 1024;

describe.skipIf(needs !== null)(needs ?? 'NBD, real servers', () => {
  let folder: string;
  let image: string;
  const content = randomBytes(capacityBytes, 3);

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'failkit-nbd-servers-'));
    image = join(folder, 'image');
    await writeFile(image, content);
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  const open = (uri: string, options: Parameters<typeof NbdDisk.open>[1] = {}) =>
    NbdDisk.open(parseNbdUri(uri), options, never);

  it.for([
    { name: 'qemu-nbd', start: startQemuNbd, args: ['--format=raw'] },
    { name: 'nbdkit', start: startNbdkit, args: ['file'] },
  ])('$name: writes, zeroes and trims read back, over TCP and several connections', async ({ start, args }) => {
    const path = join(folder, 'written');
    await writeFile(path, content);
    const expected = Buffer.from(content);
    {
      await using server = await start([...args, path], { tcp: true });
      await using disk = await open(server.uri, { contexts: [baseAllocation], connectionsMax: 3 });
      const bytes = randomBytes(3 * 1024 * 1024 + 4096, 4);
      await disk.write(4096, bytes, never);
      expected.set(bytes, 4096);
      await disk.write(capacityBytes - 512, bytes.subarray(0, 512), never, { fua: true });
      expected.set(bytes.subarray(0, 512), capacityBytes - 512);
      await disk.writeZeroes(5 * 1024 * 1024, block, never);
      await disk.writeZeroes(5 * 1024 * 1024 + 3 * block, block, never, { mayTrim: false, fua: true });
      expected.fill(0, 5 * 1024 * 1024, 5 * 1024 * 1024 + block);
      expected.fill(0, 5 * 1024 * 1024 + 3 * block, 5 * 1024 * 1024 + 4 * block);
      await disk.trim(6 * 1024 * 1024, block, never);
      await disk.flush(never);
      const found = await readAll(disk);
      // What a trim leaves is not defined.
      expected.set(found.subarray(6 * 1024 * 1024, 6 * 1024 * 1024 + block), 6 * 1024 * 1024);
      expect(Buffer.compare(found, expected)).toBe(0);
      const [zeroes] = await collect(disk.extents(baseAllocation, 5 * 1024 * 1024, block, never));
      expect((zeroes?.flags ?? 0) & readsAsZero).toBe(readsAsZero);
      await disk[Symbol.asyncDispose]();
      await server.end();
    }
    expect(Buffer.compare(await readFile(path), expected)).toBe(0);
  });

  it('a server without structured replies is read all the same', async () => {
    await using server = await startNbdkit(['--no-sr', 'file', image]);
    await using disk = await open(server.uri, { contextsIfOffered: [baseAllocation] });
    expect(disk.contexts).toEqual([]);
    expect(Buffer.compare(await readAll(disk), content)).toBe(0);
    await expect(open(server.uri, { contexts: [baseAllocation] })).rejects.toThrow(NbdUnsupported);
  });

  it('block sizes that a server insists on are kept to', async () => {
    const policy = ['blocksize-minimum=4096', 'blocksize-preferred=8192', 'blocksize-maximum=65536'];
    await using server = await startNbdkit([
      ...['--filter=blocksize-policy', 'file', image, ...policy, 'blocksize-error-policy=error'],
    ]);
    await using disk = await open(server.uri, { contexts: [baseAllocation] });
    expect(Buffer.compare(await readAll(disk), content)).toBe(0);
    const odd = new Uint8Array(100_001);
    await disk.read(4095, odd, never);
    expect(Buffer.compare(odd, content.subarray(4095, 4095 + odd.length))).toBe(0);
    expect((await collect(disk.extents(baseAllocation, 1, 5, never))).length).toBe(1);
  });

  it('bitmaps that are not there are named, and those that are there', async () => {
    const path = join(folder, 'bitmaps.qcow2');
    await runNbdTool('qemu-img', ['create', '-f', 'qcow2', path, '8M']);
    await runNbdTool('qemu-img', ['bitmap', '--add', path, 'monday']);
    await using server = await startQemuNbd(['--read-only', '--format=qcow2', '--bitmap=monday', path]);
    const opened = open(server.uri, { contexts: ['qemu:dirty-bitmap:tuesday'] });
    await expect(opened).rejects.toThrow(NbdUnsupported);
    await expect(opened).rejects.toThrow(/tuesday; there are: .*qemu:dirty-bitmap:monday/);
    const offered = await listNbdContexts(parseNbdUri(server.uri), { ca: null, client: null }, nbdTimeouts, never);
    expect(offered).toEqual(expect.arrayContaining([baseAllocation, 'qemu:dirty-bitmap:monday']));
  });

  it('an export that does not exist is named, and those that do', async () => {
    await using server = await startQemuNbd(['--read-only', '--format=raw', '--export-name=disk-1', image]);
    const opened = open(server.uri.replace(':///', ':///disk-2'));
    await expect(opened).rejects.toThrow(NbdExportRefused);
    await expect(opened).rejects.toThrow(/"disk-2" does not exist on this server; there are: disk-1/);
    await using disk = await open(server.uri.replace(':///', ':///disk-1'));
    expect(disk.capacityBytes).toBe(capacityBytes);
  });

  it('errors of the storage fail their requests, and no other', async () => {
    await using server = await startNbdkit([
      ...['--filter=error', 'file', image, 'error-pread=ENOSPC', 'error-pread-rate=100%'],
      `error-pread-file=${join(folder, 'trigger')}`,
    ]);
    await using disk = await open(server.uri);
    expect(Buffer.compare(await readAll(disk), content)).toBe(0);
    await writeFile(join(folder, 'trigger'), '');
    await expect(disk.read(0, new Uint8Array(block), never)).rejects.toMatchObject({
      code: 'NBD_REQUEST_FAILED',
      errno: 'ENOSPC',
    });
    await rm(join(folder, 'trigger'));
    expect(Buffer.compare(await readAll(disk), content)).toBe(0);
  });

  it('reads that are aborted while the server is slow leave the others whole', async () => {
    await using server = await startNbdkit(['--filter=delay', 'file', image, 'delay-read=50ms']);
    await using disk = await open(server.uri);
    const random = new Random(5);
    const reads = Array.from({ length: 60 }, (_, i) => {
      const controller = new AbortController();
      const into = new Uint8Array(block);
      const done = disk.read(i * block, into, controller.signal).then(
        () => 'whole' as const,
        () => {
          // Whoever aborts a read may use its memory at once.
          into.fill(9);
          return 'aborted' as const;
        },
      );
      if (i % 2 === 0) setTimeout(() => controller.abort(), random.below(200));
      return { at: i * block, into, done };
    });
    for (const { at, into, done } of reads) {
      const expected = (await done) === 'whole' ? content.subarray(at, at + block) : new Uint8Array(block).fill(9);
      expect(Buffer.compare(into, expected)).toBe(0);
    }
    // Late answers have come by now, to nobody's memory.
    expect(Buffer.compare(await readAll(disk), content)).toBe(0);
    for (const { into, done } of reads)
      if ((await done) === 'aborted') expect(into.every((byte) => byte === 9)).toBe(true);
  });

  it('a server that is killed in the middle of reads fails all of them at once', async () => {
    await using server = await startNbdkit(['--filter=delay', 'file', image, 'delay-read=300ms']);
    await using disk = await open(server.uri);
    const reads = Array.from({ length: 20 }, (_, i) => disk.read(i * block, new Uint8Array(block), never));
    const outcomes = Promise.allSettled(reads);
    await sleep(50);
    await server.stop();
    const reasons = (await outcomes).map((outcome) => (outcome.status === 'rejected' ? outcome.reason : null));
    expect(reasons[0]).toBeInstanceOf(NbdConnectionLost);
    expect(new Set(reasons).size).toBe(1);
  });

  it('a server that hangs is given up after the response timeout', async () => {
    await using server = await startQemuNbd(['--read-only', '--format=raw', image]);
    await using disk = await open(server.uri, { timeouts: { handshakeMs: 5_000, responseMs: 300 } });
    server.signal('SIGSTOP');
    await expect(disk.read(0, new Uint8Array(block), never)).rejects.toThrow(NbdTimedOut);
  });
});

function randomBytes(length: number, seed: number): Buffer {
  const random = new Random(seed);
  const bytes = Buffer.alloc(length);
  for (let at = 0; at < length; at += 4) bytes.writeUInt32LE(random.below(2 ** 32), at);
  return bytes;
}
