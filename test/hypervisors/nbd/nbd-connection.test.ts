import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { listNbdContexts } from '../../../hypervisors/nbd/nbd-connection.ts';
import { NbdDisk } from '../../../hypervisors/nbd/nbd-disk.ts';
import {
  NbdConnectionLost,
  NbdExportRefused,
  NbdTimedOut,
  NbdTlsUntrusted,
  NbdUnreachable,
  NbdUnsupported,
} from '../../../hypervisors/nbd/nbd-errors.ts';
import { parseNbdUri } from '../../../hypervisors/nbd/nbd-uri.ts';
import { collect } from './nbd-reading.ts';
import {
  be,
  type Conversation,
  dataChunk,
  type ExportShape,
  greeting,
  optionReply,
  readOption,
  readRequest,
  type ScriptedRequest,
  scriptedServer,
  shakeHands,
  simpleReply,
  statusChunk,
} from './scripted-server.ts';

const never = new AbortController().signal;
const block = 4096;
const brief = { handshakeMs: 150, responseMs: 150 };

function open(uri: string, options: Parameters<typeof NbdDisk.open>[1] = {}) {
  return NbdDisk.open(parseNbdUri(uri), options, never);
}

/** A server that, the export once open, goes on as told. */
function serverThat(talk: (client: Conversation) => Promise<void>, shape: Partial<ExportShape> = {}) {
  return scriptedServer(async (client) => {
    await shakeHands(client, shape);
    await talk(client);
  });
}

async function readRequests(client: Conversation, count: number): Promise<ScriptedRequest[]> {
  const requests: ScriptedRequest[] = [];
  while (requests.length < count) requests.push(await readRequest(client));
  return requests;
}

function answerTo({ cookie, offset, length }: ScriptedRequest, byte: number): Uint8Array {
  return dataChunk(cookie, offset, Buffer.alloc(length, byte));
}

describe('NBD: aborts', () => {
  it('an aborted read leaves its memory alone, and its late answer hurts nobody', async () => {
    const { promise: aborted, resolve: go } = Promise.withResolvers<void>();
    await using server = await serverThat(async (client) => {
      const [first, second] = await readRequests(client, 2);
      await aborted;
      if (first && second) client.write(answerTo(first, 1), answerTo(second, 2));
    });
    await using disk = await open(server.uri);
    const controller = new AbortController();
    const [memory, other] = [new Uint8Array(block), new Uint8Array(block)];
    const first = disk.read(0, memory, controller.signal);
    const second = disk.read(block, other, never);
    const reason = new Error('no more');
    controller.abort(reason);
    await expect(first).rejects.toBe(reason);
    memory.fill(9);
    go();
    await second;
    expect(memory.every((byte) => byte === 9)).toBe(true);
    expect(other.every((byte) => byte === 2)).toBe(true);
  });

  it.for([1, 5000, 40_000])(
    'a read aborted %i bytes into its data is drained, and the next one is right',
    async (start) => {
      const { promise: started, resolve: begin } = Promise.withResolvers<void>();
      const { promise: aborted, resolve: go } = Promise.withResolvers<void>();
      const length = 65_536;
      await using server = await serverThat(async (client) => {
        const [first, second] = await readRequests(client, 2);
        if (!first || !second) return;
        const answer = answerTo(first, 1);
        client.write(answer.subarray(0, 28 + start));
        await sleep(20);
        begin();
        await aborted;
        // First a little, which the memory that the kernel holds may still take, then the rest.
        client.write(answer.subarray(28 + start, 38 + start));
        await sleep(20);
        client.write(answer.subarray(38 + start), answerTo(second, 2));
      });
      await using disk = await open(server.uri);
      const controller = new AbortController();
      const [memory, other] = [new Uint8Array(length), new Uint8Array(length)];
      const first = disk.read(0, memory, controller.signal);
      const second = disk.read(length, other, never);
      await started;
      controller.abort(new Error('no more'));
      go();
      await expect(first).rejects.toThrow('no more');
      memory.fill(9);
      await second;
      expect(memory.every((byte) => byte === 9)).toBe(true);
      expect(other.every((byte) => byte === 2)).toBe(true);
    },
  );

  it('a read that is aborted while the server is stuck in its data ends all the same', async () => {
    const { promise: started, resolve: begin } = Promise.withResolvers<void>();
    await using server = await serverThat(async (client) => {
      client.write(answerTo(await readRequest(client), 1).subarray(0, 30_000));
      await sleep(20);
      begin();
    });
    await using disk = await open(server.uri);
    const controller = new AbortController();
    const memory = new Uint8Array(65_536);
    const read = disk.read(0, memory, controller.signal);
    await started;
    controller.abort(new Error('no more'));
    await expect(read).rejects.toThrow('no more');
    await expect(disk.read(0, memory, never)).rejects.toThrow(NbdConnectionLost);
  });

  it('what is aborted beforehand is never asked for', async () => {
    await using server = await serverThat(async (client) => {
      const request = await readRequest(client);
      client.write(dataChunk(request.cookie, request.offset, Buffer.alloc(request.length, 3)));
    });
    await using disk = await open(server.uri);
    await expect(disk.read(0, new Uint8Array(block), AbortSignal.abort(new Error('early')))).rejects.toThrow('early');
    await disk.read(block, new Uint8Array(block), never);
    const gone = NbdDisk.open(parseNbdUri(server.uri), {}, AbortSignal.abort(new Error('early')));
    await expect(gone).rejects.toThrow('early');
  });

  it('an abort ends the handshake, too', async () => {
    await using server = await scriptedServer(async () => undefined);
    const controller = new AbortController();
    const opened = NbdDisk.open(parseNbdUri(server.uri), {}, controller.signal);
    setTimeout(() => controller.abort(new Error('no more')), 20);
    await expect(opened).rejects.toThrow('no more');
  });
});

describe('NBD: servers that fall silent or go away', () => {
  it('no answer for too long ends every request with the same error', async () => {
    await using server = await serverThat(async () => undefined);
    await using disk = await open(server.uri, { timeouts: brief });
    const reads = [0, block].map((at) => disk.read(at, new Uint8Array(block), never));
    const outcomes = await Promise.allSettled(reads);
    const errors = outcomes.map((outcome) => (outcome.status === 'rejected' ? outcome.reason : null));
    expect(errors[0]).toBeInstanceOf(NbdTimedOut);
    expect(errors[0]).toBe(errors[1]);
    expect(String(errors[0])).toMatch(/none of 2 requests .* read of 4096 bytes at 0/);
  });

  it('a trickle is no answer', async () => {
    await using server = await serverThat(async (client) => {
      const answer = answerTo(await readRequest(client), 1);
      for (let at = 0; at < answer.length && !client.socket.destroyed; at += 1) {
        client.write(answer.subarray(at, at + 1));
        await sleep(10);
      }
    });
    await using disk = await open(server.uri, { timeouts: brief });
    await expect(disk.read(0, new Uint8Array(block), never)).rejects.toThrow(NbdTimedOut);
  });

  it('a trickle is no handshake either', async () => {
    await using server = await scriptedServer(async (client) => {
      for (let at = 0; at < greeting.length * 100 && !client.socket.destroyed; at += 1) {
        client.write(greeting.subarray(at % 18, (at % 18) + 1));
        await sleep(10);
      }
    });
    await expect(open(server.uri, { timeouts: brief })).rejects.toThrow(NbdTimedOut);
  });

  it('a server without work may be silent for as long as it likes', async () => {
    await using server = await serverThat(async (client) => {
      for (;;) client.write(answerTo(await readRequest(client), 1));
    });
    await using disk = await open(server.uri, { timeouts: brief });
    await disk.read(0, new Uint8Array(block), never);
    await sleep(400);
    await disk.read(0, new Uint8Array(block), never);
  });

  it.for([0, 10, 28, 3000])('a server that vanishes %i bytes into an answer fails all requests', async (bytes) => {
    await using server = await serverThat(async (client) => {
      const [first] = await readRequests(client, 2);
      if (first) client.write(answerTo(first, 1).subarray(0, bytes));
      client.socket.end();
    });
    await using disk = await open(server.uri);
    const outcomes = await Promise.allSettled([0, block].map((at) => disk.read(at, new Uint8Array(block), never)));
    for (const outcome of outcomes) expect(outcome).toMatchObject({ reason: { code: 'NBD_CONNECTION_LOST' } });
    await expect(disk.read(0, new Uint8Array(1), never)).rejects.toThrow(NbdConnectionLost);
  });

  it('a server that vanishes in the handshake', async () => {
    await using server = await scriptedServer(async (client) => {
      client.write(greeting);
      client.socket.end();
    });
    await expect(open(server.uri)).rejects.toThrow(NbdConnectionLost);
  });

  it('nobody at the address', async () => {
    await expect(open('nbd+unix:///?socket=/nowhere/at/all')).rejects.toThrow(NbdUnreachable);
    await expect(open('nbd+unix:///?socket=/nowhere/at/all')).rejects.toThrow(/nobody answers \(ENOENT\)/);
  });

  it('requests of a connection that is closed on this side end with it', async () => {
    await using server = await serverThat(async () => undefined);
    const disk = await open(server.uri);
    const read = disk.read(0, new Uint8Array(block), never);
    const outcome = expect(read).rejects.toThrow(/closed on this side/);
    await disk[Symbol.asyncDispose]();
    await outcome;
  });

  it('closing says goodbye', async () => {
    const { promise: heard, resolve: hear } = Promise.withResolvers<number>();
    await using server = await serverThat(async (client) => {
      hear((await readRequest(client)).command);
      client.socket.end();
    });
    const disk = await open(server.uri);
    await disk[Symbol.asyncDispose]();
    expect(await heard).toBe(2);
  });
});

describe('NBD: what a server lacks', () => {
  it('an export that does not exist is named, with those that do', async () => {
    await using server = await scriptedServer(async (client) => {
      client.write(greeting);
      await client.read(4);
      for (;;) {
        const { option } = await readOption(client);
        if (option === 7) client.write(optionReply(7, 0x80000006));
        else if (option === 3) {
          for (const name of ['disk-1', 'disk-2', ''])
            client.write(optionReply(3, 2, Buffer.concat([be(32, name.length), Buffer.from(name)])));
          client.write(optionReply(3, 1));
        } else client.write(optionReply(option, 1));
      }
    });
    const opened = open(server.uri.replace(':///', ':///disk-7'));
    await expect(opened).rejects.toThrow(NbdExportRefused);
    await expect(opened).rejects.toThrow(/"disk-7" does not exist .*; there are: disk-1, disk-2, "" \(the default\)/);
  });

  it('a context that is not granted is named, with those that are offered', async () => {
    await using server = await scriptedServer(async (client) => {
      client.write(greeting);
      await client.read(4);
      for (;;) {
        const { option } = await readOption(client);
        if (option === 9) client.write(optionReply(9, 4, Buffer.concat([be(32, 0), Buffer.from('base:allocation')])));
        client.write(optionReply(option, 1));
      }
    });
    const opened = open(server.uri, { contexts: ['qemu:dirty-bitmap:x'] });
    await expect(opened).rejects.toThrow(NbdUnsupported);
    await expect(opened).rejects.toThrow(/no context qemu:dirty-bitmap:x; there are: base:allocation/);
    const address = parseNbdUri(server.uri);
    expect(await listNbdContexts(address, { ca: null, client: null }, brief, never)).toEqual(['base:allocation']);
  });

  it('contexts need structured replies; one that is only welcome is gone without', async () => {
    await using server = await scriptedServer((client) => shakeHands(client, { structured: false }));
    await expect(open(server.uri, { contexts: ['a:b'] })).rejects.toThrow(NbdUnsupported);
    await using disk = await open(server.uri, { contextsIfOffered: ['a:b'] });
    expect(disk.contexts).toEqual([]);
    await expect(collect(disk.extents('a:b', 0, block, never))).rejects.toThrow(NbdUnsupported);
  });

  it('a server without TLS is refused, not spoken to in plain', async () => {
    let asked = 0;
    await using server = await scriptedServer(async (client) => {
      client.write(greeting);
      await client.read(4);
      for (;;) {
        const { option } = await readOption(client);
        asked += 1;
        client.write(optionReply(option, 0x80000001));
      }
    });
    await expect(open(server.uri.replace('nbd+', 'nbds+'))).rejects.toThrow(NbdTlsUntrusted);
    expect(asked).toBe(1);
  });

  it('a server that insists on TLS says so', async () => {
    await using server = await scriptedServer(async (client) => {
      client.write(greeting);
      await client.read(4);
      client.write(optionReply((await readOption(client)).option, 0x80000005));
    });
    await expect(open(server.uri)).rejects.toThrow(/insists on TLS .*write nbds:/);
  });

  it('the old handshake is refused', async () => {
    await using server = await scriptedServer(async (client) => {
      client.write(Buffer.concat([greeting.subarray(0, 16), be(16, 0)]));
    });
    await expect(open(server.uri)).rejects.toThrow(NbdUnsupported);
  });

  it('an export that is not whole blocks is refused, for its end could not be read', async () => {
    const shape = { capacityBytes: 4096 + 512, blocks: [4096, 4096, 65536] } as const;
    await using server = await scriptedServer((client) => shakeHands(client, shape));
    await expect(open(server.uri)).rejects.toThrow(/the last 512 bytes can't be read/);
  });

  it('a read-only export takes no writes', async () => {
    await using server = await scriptedServer((client) => shakeHands(client, { flags: 1 | 2 | 32 | 64 }));
    await using disk = await open(server.uri);
    const writes = [
      disk.write(0, new Uint8Array(block), never),
      disk.writeZeroes(0, block, never),
      disk.trim(0, block, never),
      disk.flush(never),
    ];
    for (const outcome of await Promise.allSettled(writes))
      expect(outcome).toMatchObject({ reason: { code: 'NBD_UNSUPPORTED' } });
  });
});

describe('NBD: requests', () => {
  it('at most 64 are under way, the others wait for their turn', async () => {
    let most = 0;
    await using server = await serverThat(async (client) => {
      const held = await readRequests(client, 64);
      await sleep(30);
      for (let next = 0; next < 200; next += 1) {
        most = Math.max(most, held.length);
        const request = held.shift();
        if (request) client.write(answerTo(request, 1));
        if (next < 136) held.push(await readRequest(client));
      }
    });
    await using disk = await open(server.uri);
    const reads = Array.from({ length: 200 }, (_, i) => disk.read(i * 512, new Uint8Array(512), never));
    await Promise.all(reads);
    expect(most).toBe(64);
  });

  it('block sizes of the server are kept to', async () => {
    const asked: ScriptedRequest[] = [];
    const shape = { blocks: [512, 4096, 8192] } as const;
    await using server = await serverThat(async (client) => {
      for (;;) {
        const request = await readRequest(client);
        asked.push(request);
        client.write(answerTo(request, request.offset / 512));
      }
    }, shape);
    await using disk = await open(server.uri);
    const into = new Uint8Array(20_000);
    await disk.read(700, into, never);
    for (const { offset, length } of asked) {
      expect(offset % 512).toBe(0);
      expect(length % 512).toBe(0);
      expect(length).toBeLessThanOrEqual(8192);
    }
    expect(Math.min(...asked.map(({ offset }) => offset))).toBe(512);
    expect(Math.max(...asked.map(({ offset, length }) => offset + length))).toBe(20_992);
    await expect(disk.write(0, new Uint8Array(100), never)).rejects.toThrow(RangeError);
    await expect(disk.read(1024 * 1024 - 1, new Uint8Array(2), never)).rejects.toThrow(RangeError);
  });

  it('extents are asked for until the end, and neighbours that are alike become one', async () => {
    await using server = await serverThat(
      async (client) => {
        for (;;) {
          const { cookie, offset } = await readRequest(client);
          client.write(
            statusChunk(cookie, 1, offset === 0 ? [512, 3, 512, 3] : [1024, offset < 4096 ? 3 : 0, 1024, 1]),
          );
        }
      },
      { contexts: ['a:b'], capacityBytes: 7168 },
    );
    await using disk = await open(server.uri, { contexts: ['a:b'] });
    expect(await collect(disk.extents('a:b', 0, 7168, never))).toEqual([
      { offset: 0, length: 2048, flags: 3 },
      { offset: 2048, length: 1024, flags: 1 },
      { offset: 3072, length: 1024, flags: 3 },
      { offset: 4096, length: 1024, flags: 1 },
      { offset: 5120, length: 1024, flags: 0 },
      { offset: 6144, length: 1024, flags: 1 },
    ]);
  });

  it('writes carry their bytes and flags', async () => {
    const asked: unknown[] = [];
    await using server = await serverThat(async (client) => {
      for (;;) {
        const { cookie, ...request } = await readRequest(client);
        asked.push({
          ...request,
          ...(request.command === 1 ? { bytes: [...(await client.read(request.length))] } : {}),
        });
        client.write(simpleReply(cookie));
      }
    });
    await using disk = await open(server.uri);
    await disk.write(3, Uint8Array.of(1, 2, 3), never, { fua: true });
    await disk.writeZeroes(8, 100, never, { mayTrim: false, fua: true });
    await disk.writeZeroes(8, 100, never);
    await disk.trim(8, 200, never);
    await disk.flush(never);
    expect(asked).toEqual([
      { command: 1, flags: 1, offset: 3, length: 3, bytes: [1, 2, 3] },
      { command: 6, flags: 3, offset: 8, length: 100 },
      { command: 6, flags: 0, offset: 8, length: 100 },
      { command: 4, flags: 0, offset: 8, length: 200 },
      { command: 3, flags: 0, offset: 0, length: 0 },
    ]);
  });
});
