import { spawnSync } from 'node:child_process';
import { chmod, chown, mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { baseAllocation, NbdDisk, readsAsZero } from '../../../../hypervisors/nbd/nbd-disk.ts';
import { NbdRequestFailed } from '../../../../hypervisors/nbd/nbd-errors.ts';
import { parseNbdUri } from '../../../../hypervisors/nbd/nbd-uri.ts';
import { NbdListenFailed, type NbdListenPlace } from '../../../../hypervisors/nbd/server/listen.ts';
import { NbdServer } from '../../../../hypervisors/nbd/server/nbd-server.ts';
import { Random } from '../../../random.ts';
import { collect, readAll } from '../nbd-reading.ts';
import { be } from '../scripted-server.ts';
import { MemoryExport, readOnly } from './memory-export.ts';
import { RawClient } from './raw-client.ts';
import { serve } from './served.ts';

const never = new AbortController().signal;
const mebi = 1024 * 1024;
const [read, write, flush, trim, zeroes, status] = [0, 1, 3, 4, 6, 7];
const [einval, enospc, eperm, eio] = [22, 28, 1, 5];

function open(uri: string, options: Parameters<typeof NbdDisk.open>[1] = {}): Promise<NbdDisk> {
  return NbdDisk.open(parseNbdUri(uri), { contextsIfOffered: [baseAllocation], ...options }, never);
}

it('what is written, zeroed and trimmed reads back, over several connections', async () => {
  const disk = new MemoryExport('d', randomBytes(8 * mebi + 512, 1));
  await using served = await serve([disk]);
  const expected = Buffer.from(disk.content);
  await using client = await open(served.uri(), { connectionsMax: 3 });
  expect(client.capacityBytes).toBe(8 * mebi + 512);
  expect(served.server.connections).toBe(3);
  const bytes = randomBytes(3 * mebi + 1, 2);
  await client.write(4097, bytes, never);
  expected.set(bytes, 4097);
  await client.writeZeroes(5 * mebi, mebi, never, { mayTrim: false, fua: true });
  expected.fill(0, 5 * mebi, 6 * mebi);
  await client.trim(7 * mebi, 4096, never);
  expected.fill(0, 7 * mebi, 7 * mebi + 4096);
  await client.flush(never);
  expect(Buffer.compare(await readAll(client), expected)).toBe(0);
  expect(disk.asked).toContain(`zeroes ${5 * mebi} ${mebi} allocated`);
  const extents = await collect(client.extents(baseAllocation, 4 * mebi, 3 * mebi, never));
  expect(extents).toEqual([
    { offset: 4 * mebi, length: mebi, flags: 0 },
    { offset: 5 * mebi, length: mebi, flags: readsAsZero | 1 },
    { offset: 6 * mebi, length: mebi, flags: 0 },
  ]);
});

it('a forced write is durable before it is answered, and one that is not forced causes no flush', async () => {
  const disk = new MemoryExport('d', Buffer.alloc(mebi));
  await using served = await serve([disk]);
  await using client = await open(served.uri());
  await client.write(0, Buffer.alloc(4096, 1), never, { fua: false });
  await client.write(4096, Buffer.alloc(4096, 1), never, { fua: true });
  await client.writeZeroes(8192, 4096, never, { mayTrim: true, fua: true });
  expect(disk.asked).toEqual(['write 0 4096', 'write 4096 4096', 'flush', 'zeroes 8192 4096', 'flush']);
});

it('several exports: each by its name, the default only where there is one', async () => {
  const exports = [
    new MemoryExport('system', Buffer.alloc(mebi, 1)),
    new MemoryExport('däta 2', Buffer.alloc(mebi, 2)),
  ];
  await using served = await serve(exports);
  await using second = await open(served.uri('däta 2'));
  expect((await readAll(second))[0]).toBe(2);
  await expect(open(served.uri())).rejects.toThrow(
    'the export "" does not exist on this server; there are: system, däta 2',
  );
  await using chosen = await serve(exports, { defaultExport: 'system' });
  await using first = await open(chosen.uri());
  expect((await readAll(first))[0]).toBe(1);
});

it('a read-only export refuses every change, and what leaves the disk is refused', async () => {
  await using served = await serve([readOnly(new MemoryExport('d', Buffer.alloc(mebi)))]);
  await using client = await open(served.uri());
  expect(client.can).toMatchObject({ write: false, trim: false, writeZeroes: false, multipleConnections: true });
  using raw = await RawClient.connect(served.socket);
  await raw.enter();
  for (const number of [write, trim, zeroes]) {
    raw.request(number, 0, 4096, number === write ? { payload: Buffer.alloc(4096) } : {});
    expect(await raw.refusal()).toBe(eperm);
  }
  for (const [number, offset, length, flags = 0] of [
    [read, mebi, 1],
    [read, 2 ** 50, 4096],
    [read, mebi - 1, 2],
    [flush, 0, 0],
    [status, 0, 0],
    [99, 0, 0],
    [read, 0, 4096, 64],
    [read, 0, 33 * mebi],
  ] as const) {
    raw.request(number, offset, length, { flags });
    expect(await raw.refusal(), `${number} ${offset} ${length}`).toBe(einval);
  }
  raw.request(read, mebi - 1, 1);
  expect((await raw.chunk()).type).toBe(1);
});

it('a writable export says that there is no room beyond its end, and takes the bytes of a refused write', async () => {
  const disk = new MemoryExport('d', Buffer.alloc(mebi));
  await using served = await serve([disk]);
  using raw = await RawClient.connect(served.socket);
  await raw.enter();
  raw.request(write, mebi - 1, 4096, { payload: Buffer.alloc(4096) });
  expect(await raw.refusal()).toBe(enospc);
  raw.request(zeroes, mebi, 1);
  expect(await raw.refusal()).toBe(enospc);
  // Fast zeroes were not offered.
  raw.request(zeroes, 0, 4096, { flags: 16 });
  expect(await raw.refusal()).toBe(einval);
  raw.request(flush, 0, 1);
  expect(await raw.refusal()).toBe(einval);
  raw.request(write, 0, 3, { payload: Buffer.from('abc') });
  expect(await raw.chunk()).toMatchObject({ type: 0, done: true });
  expect(disk.content.toString('latin1', 0, 3)).toBe('abc');
  expect(disk.asked).toEqual(['write 0 3']);
});

it('zeroes that have to be fast are served where the handler promises it', async () => {
  const disk = new MemoryExport('d', Buffer.alloc(mebi, 1), { zeroesAreFast: true });
  await using served = await serve([disk]);
  using raw = await RawClient.connect(served.socket);
  await raw.enter();
  raw.request(zeroes, 0, 4096, { flags: 16 });
  expect(await raw.chunk()).toMatchObject({ type: 0, done: true });
  expect(disk.content[4095]).toBe(0);
});

it('blocks that are larger than a byte are insisted on', async () => {
  const disk = new MemoryExport('d', Buffer.alloc(mebi));
  await using served = await serve([Object.assign(readOnly(disk), { minBlockBytes: 512 })]);
  await using client = await open(served.uri());
  expect(client.blockBytes).toBe(512);
  using raw = await RawClient.connect(served.socket);
  await raw.enter();
  raw.request(read, 1, 512);
  expect(await raw.refusal()).toBe(einval);
  raw.request(read, 512, 100);
  expect(await raw.refusal()).toBe(einval);
});

it('what a handler can not read fails there alone, with its errno and its words, and is told', async () => {
  const disk = new MemoryExport('d', Buffer.alloc(4 * mebi, 1));
  disk.gate = async (what) => {
    if (what.startsWith(`read ${mebi} `)) throw new Error('internal: /secret/path');
    if (what.startsWith('write')) throw new NbdRequestFailed('the spool is full', 'ENOSPC');
  };
  await using served = await serve([disk]);
  await using client = await open(served.uri());
  await expect(client.read(mebi, new Uint8Array(4096), never)).rejects.toMatchObject({ errno: 'EIO' });
  await expect(client.read(mebi, new Uint8Array(4096), never)).rejects.toThrow("see the server's log");
  await expect(client.write(0, Buffer.alloc(4096), never)).rejects.toMatchObject({ errno: 'ENOSPC' });
  await expect(client.write(0, Buffer.alloc(4096), never)).rejects.toThrow('the spool is full');
  await client.read(0, new Uint8Array(4096), never);
  expect(served.events.join('\n')).toContain(`failed: read of 4096 bytes at ${mebi}: Error: internal: /secret/path`);
  // In a read of several pieces the error says where it is, after what could be read.
  using raw = await RawClient.connect(served.socket);
  await raw.enter();
  raw.request(read, 0, 3 * mebi);
  expect(await raw.chunk()).toMatchObject({ type: 1, done: false });
  const { type, done, body } = await raw.chunk();
  expect({ type, done, errno: body.readUInt32BE(0), at: Number(body.readBigUInt64BE(body.length - 8)) }).toEqual({
    type: 0x8002,
    done: true,
    errno: eio,
    at: mebi,
  });
});

it('an old client: export by name, simple replies, a failure of the whole read', async () => {
  const disk = new MemoryExport('d', randomBytes(4 * mebi, 5));
  disk.gate = async (what) => {
    if (what.startsWith('read 0 ')) throw new Error('no');
  };
  await using served = await serve([disk]);
  using raw = await RawClient.connect(served.socket);
  await raw.read(18);
  raw.send(be(32, 1));
  raw.option(1, Buffer.from('d'));
  const info = await raw.read(8 + 2 + 124);
  expect(info.readBigUInt64BE()).toBe(BigInt(4 * mebi));
  raw.request(read, 4096, 2 * mebi);
  const reply = await raw.read(16 + 2 * mebi);
  expect(reply.readUInt32BE(4)).toBe(0);
  expect(Buffer.compare(reply.subarray(16), disk.content.subarray(4096, 4096 + 2 * mebi))).toBe(0);
  raw.request(read, 0, 4096);
  expect((await raw.read(16)).readUInt32BE(4)).toBe(eio);
});

it('a status question for one extent gets one', async () => {
  const disk = new MemoryExport('d', Buffer.alloc(mebi));
  disk.content[4096] = 1;
  await using served = await serve([disk]);
  using raw = await RawClient.connect(served.socket);
  await raw.enter();
  raw.request(status, 0, mebi, { flags: 8 });
  expect((await raw.chunk()).body.toString('hex')).toBe(be(32, 1, 4096, 3).toString('hex'));
  raw.request(status, 0, mebi);
  expect((await raw.chunk()).body.length).toBe(4 + 3 * 8);
});

it('writes that wait make the client wait: what is in memory stays bounded, and other clients are served', async () => {
  const slow = new MemoryExport('slow', Buffer.alloc(64 * mebi));
  const fast = new MemoryExport('fast', Buffer.alloc(mebi, 1));
  const gate = Promise.withResolvers<void>();
  slow.gate = () => gate.promise;
  await using served = await serve([slow, fast], { bounds: { connectionBytesMax: 4 * mebi, bytesMax: 8 * mebi } });
  await using client = await open(served.uri('slow'));
  const bytes = randomBytes(32 * mebi, 6);
  const writing = client.write(0, bytes, never);
  await sleep(300);
  expect(slow.asked.length).toBe(4);
  expect(served.server.heldBytes).toBe(4 * mebi);
  await using other = await open(served.uri('fast'));
  expect((await readAll(other))[5]).toBe(1);
  gate.resolve();
  await writing;
  expect(Buffer.compare(slow.content.subarray(0, bytes.length), bytes)).toBe(0);
  expect(served.server.heldBytes).toBe(0);
});

it('a client that takes no answers is given up, and its memory with it', async () => {
  const disk = new MemoryExport('d', Buffer.alloc(16 * mebi, 1));
  await using served = await serve([disk], { bounds: { stallMs: 400 } });
  using raw = await RawClient.connect(served.socket);
  await raw.enter();
  raw.socket.pause();
  for (let i = 0; i < 40; i++) raw.request(read, 0, mebi, { cookie: i });
  await expect.poll(() => served.events.at(-1), { timeout: 10_000 }).toContain('nothing moved for 0.4 s');
  expect(served.server.heldBytes).toBe(0);
  expect(served.server.connections).toBe(0);
});

it('a client on a slow line is not given up while an answer moves', async () => {
  const bytes = randomBytes(4 * mebi, 5);
  await using served = await serve([new MemoryExport('d', bytes)], { bounds: { stallMs: 1500 } });
  using raw = await RawClient.connect(served.socket);
  await raw.enter({ structured: false });
  raw.socket.pause();
  raw.request(read, 0, bytes.length);
  const received: Buffer[] = [];
  for (let left = 16 + bytes.length; left > 0; await sleep(20)) {
    const chunk: Buffer | null = raw.socket.read(Math.min(left, 32 * 1024)) ?? raw.socket.read();
    if (raw.ended) break;
    if (chunk === null) continue;
    received.push(chunk);
    left -= chunk.length;
  }
  expect(Buffer.compare(Buffer.concat(received).subarray(16), bytes)).toBe(0);
});

it('a client that stops in the middle of a request is given up; one that is silent between two is not', async () => {
  await using served = await serve([new MemoryExport('d', Buffer.alloc(mebi, 1))], { bounds: { stallMs: 300 } });
  using idle = await RawClient.connect(served.socket);
  await idle.enter();
  using halfHeader = await RawClient.connect(served.socket);
  await halfHeader.enter();
  halfHeader.send(be(32, 0x25609513));
  using halfWrite = await RawClient.connect(served.socket);
  await halfWrite.enter();
  halfWrite.request(write, 0, 4096);
  await Promise.all([halfHeader.hungUpOn(), halfWrite.hungUpOn()]);
  expect(served.server.heldBytes).toBe(0);
  idle.request(read, 0, 16);
  expect((await idle.chunk()).body.length).toBe(24);
});

it('half-open handshakes end in time, and never keep others out', async () => {
  await using served = await serve([new MemoryExport('d', Buffer.alloc(mebi))], { bounds: { handshakeMs: 500 } });
  const halves = await Promise.all(Array.from({ length: 40 }, () => RawClient.connect(served.socket)));
  // More than may be in a handshake at once: the oldest went first.
  await halves[0]?.hungUpOn();
  await using client = await open(served.uri());
  await client.read(0, new Uint8Array(512), never);
  await Promise.all(halves.map((half) => half.hungUpOn()));
  expect(served.server.connections).toBe(1);
});

it('beyond the most connections a client is sent away, until one leaves', async () => {
  await using served = await serve([new MemoryExport('d', Buffer.alloc(mebi))], { bounds: { connectionsMax: 2 } });
  const first = await open(served.uri());
  await using _second = await open(served.uri());
  await expect(open(served.uri())).rejects.toMatchObject({ code: 'NBD_CONNECTION_LOST' });
  await first[Symbol.asyncDispose]();
  await expect.poll(() => served.server.connections).toBe(1);
  await using third = await open(served.uri());
  await third.read(0, new Uint8Array(512), never);
});

it('a client that vanishes aborts what is done for it', async () => {
  const disk = new MemoryExport('d', Buffer.alloc(mebi));
  const aborted: string[] = [];
  disk.gate = (what, signal) =>
    new Promise((_resolve, reject) => {
      signal.addEventListener('abort', () => {
        aborted.push(what);
        reject(signal.reason);
      });
    });
  await using served = await serve([disk]);
  const raw = await RawClient.connect(served.socket);
  await raw.enter();
  raw.request(read, 0, 4096);
  raw.request(write, 0, 3, { payload: Buffer.from('abc') });
  await expect.poll(() => disk.asked.length).toBe(2);
  raw[Symbol.dispose]();
  await expect.poll(() => served.server.connections).toBe(0);
  expect(aborted).toEqual(['read 0 4096', 'write 0 3']);
  expect(served.server.heldBytes).toBe(0);
  expect(served.events.join()).not.toContain('failed');
});

it('after a goodbye the answers that are still due come, and then the end', async () => {
  const disk = new MemoryExport('d', Buffer.alloc(mebi, 3));
  disk.gate = () => sleep(100);
  await using served = await serve([disk]);
  using raw = await RawClient.connect(served.socket);
  await raw.enter();
  raw.request(read, 0, 4096);
  raw.request(2, 0, 0);
  expect((await raw.chunk()).body.length).toBe(8 + 4096);
  await raw.hungUpOn();
  await expect.poll(() => served.events.at(-1)).toBe('disconnected: goodbye');
});

it('the end of the server ends every connection and removes its socket', async () => {
  const served = await serve([new MemoryExport('d', Buffer.alloc(mebi))]);
  expect((await stat(served.socket)).mode & 0o777).toBe(0o600);
  expect((await stat(dirname(served.socket))).mode & 0o777).toBe(0o700);
  await using client = await open(served.uri());
  using half = await RawClient.connect(served.socket);
  await served[Symbol.asyncDispose]();
  await expect(client.read(0, new Uint8Array(512), never)).rejects.toMatchObject({ code: 'NBD_CONNECTION_LOST' });
  await half.hungUpOn();
  await expect(stat(served.socket)).rejects.toMatchObject({ code: 'ENOENT' });
});

it('a place that can not be used is refused: another server, another file, the network without TLS', async () => {
  const exports = [new MemoryExport('d', Buffer.alloc(mebi))];
  const listen = (place: NbdListenPlace) => NbdServer.listen({ place, exports, defaultExport: null, tls: null });
  await using served = await serve(exports);
  await expect(listen({ kind: 'unix', path: served.socket })).rejects.toThrow('somebody serves there already');
  const folder = await mkdtemp(join(tmpdir(), 'failkit-nbd-place-'));
  await writeFile(join(folder, 'file'), 'x');
  await expect(listen({ kind: 'unix', path: join(folder, 'file') })).rejects.toThrow('is no socket');
  await expect(listen({ kind: 'unix', path: `/${'x'.repeat(107)}` })).rejects.toThrow(NbdListenFailed);
  await chmod(folder, 0o777);
  await expect(listen({ kind: 'unix', path: join(folder, 's') })).rejects.toThrow('others may write there');
  await chmod(folder, 0o755);
  if (process.getuid?.() === 0) {
    await chown(folder, 12_345, 12_345);
    await expect(listen({ kind: 'unix', path: join(folder, 's') })).rejects.toThrow('others may write there');
  }
  await expect(listen({ kind: 'tcp', host: '0.0.0.0', port: 0 })).rejects.toThrow('without TLS everybody');
  await using tcp = await listen({ kind: 'tcp', host: '127.0.0.1', port: 0 });
  const { place } = tcp;
  if (place.kind !== 'tcp') throw new Error('it listens elsewhere');
  await expect(listen(place)).rejects.toThrow('EADDRINUSE');
  await using client = await open(`nbd://127.0.0.1:${place.port}/d`);
  expect(client.capacityBytes).toBe(mebi);
  await rm(folder, { recursive: true });
});

it('takes the place of a server that was killed', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'failkit-nbd-stale-'));
  const path = join(folder, 's');
  const script = `require('node:net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`;
  spawnSync(process.execPath, ['-e', script]);
  expect((await stat(path)).isSocket()).toBe(true);
  const exports = [new MemoryExport('d', Buffer.alloc(mebi))];
  await using _server = await NbdServer.listen({
    place: { kind: 'unix', path },
    exports,
    defaultExport: 'd',
    tls: null,
  });
  await using client = await open(`nbd+unix:///?socket=${path}`);
  expect(client.capacityBytes).toBe(mebi);
  await client[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});

function randomBytes(length: number, seed: number): Buffer {
  const random = new Random(seed);
  const bytes = Buffer.alloc(length);
  for (let at = 0; at + 4 <= length; at += 4) bytes.writeUInt32LE(random.below(2 ** 32), at);
  return bytes;
}
