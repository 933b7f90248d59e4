/** An NBD server that says what a test tells it to, for what no real server would say. On a unix socket. */
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface Conversation {
  /** Exactly so many bytes of the client; never settles when it is gone. */
  read(bytes: number): Promise<Buffer>;
  write(...parts: readonly Uint8Array[]): void;
  readonly socket: Socket;
}

export interface ScriptedServer extends AsyncDisposable {
  readonly uri: string;
}

/** Runs the script for each connection. What it throws is the test's failure. */
export async function scriptedServer(script: (client: Conversation) => Promise<void>): Promise<ScriptedServer> {
  const folder = await mkdtemp(join(tmpdir(), 'failkit-nbd-'));
  const sockets = new Set<Socket>();
  const failures: unknown[] = [];
  const server = createServer((socket) => {
    sockets.add(socket);
    // The client may hang up in the middle of a word; that is what many of the tests are about.
    socket.on('error', () => undefined);
    script(conversation(socket)).catch((error: unknown) => failures.push(error));
  });
  server.listen(join(folder, 's'));
  await once(server, 'listening');
  return {
    uri: `nbd+unix:///?socket=${join(folder, 's')}`,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      server.close();
      await rm(folder, { recursive: true });
      if (failures.length > 0) throw failures[0];
    },
  };
}

function conversation(socket: Socket): Conversation {
  let ahead = Buffer.alloc(0);
  let wake: () => void = () => undefined;
  socket.on('data', (chunk) => {
    ahead = Buffer.concat([ahead, Buffer.from(chunk)]);
    wake();
  });
  return {
    socket,
    async read(bytes) {
      while (ahead.length < bytes) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
      const taken = ahead.subarray(0, bytes);
      ahead = ahead.subarray(bytes);
      return taken;
    },
    write(...parts) {
      if (!socket.destroyed) socket.write(Buffer.concat(parts));
    },
  };
}

/** Big-endian numbers, as `be(16, 1)` or `be(64, offset)`. */
export function be(bits: 16 | 32 | 64, ...values: readonly number[]): Buffer {
  const bytes = Buffer.alloc((bits / 8) * values.length);
  values.forEach((value, index) => {
    if (bits === 16) bytes.writeUInt16BE(value, 2 * index);
    else if (bits === 32) bytes.writeUInt32BE(value, 4 * index);
    else bytes.writeBigUInt64BE(BigInt(value), 8 * index);
  });
  return bytes;
}

export const greeting = Buffer.concat([Buffer.from('NBDMAGICIHAVEOPT'), be(16, 3)]);

export interface ExportShape {
  readonly capacityBytes: number;
  readonly flags: number;
  readonly structured: boolean;
  readonly contexts: readonly string[];
  readonly blocks: readonly [min: number, preferred: number, max: number] | null;
}

/** Everything that an export can do; one connection. */
const plainShape: ExportShape = {
  capacityBytes: 1024 * 1024,
  flags: 1 | 4 | 8 | 32 | 64,
  structured: true,
  contexts: [],
  blocks: null,
};

export function optionReply(option: number, type: number, data: Uint8Array = Buffer.alloc(0)): Buffer {
  const magic = Buffer.from('0003e889045565a9', 'hex');
  return Buffer.concat([magic, be(32, option, type, data.length), data]);
}

/** Answers options the way a proper server does, until the export is open. */
export async function shakeHands(client: Conversation, shape: Partial<ExportShape> = {}): Promise<void> {
  const { capacityBytes, flags, structured, contexts, blocks } = { ...plainShape, ...shape };
  client.write(greeting);
  await client.read(4);
  for (;;) {
    const { option } = await readOption(client);
    if (option === 8) client.write(optionReply(8, structured ? 1 : 0x80000001));
    else if (option === 9 || option === 10) {
      contexts.forEach((name, id) => {
        client.write(optionReply(option, 4, Buffer.concat([be(32, id + 1), Buffer.from(name)])));
      });
      client.write(optionReply(option, 1));
    } else if (option === 7) {
      client.write(optionReply(7, 3, Buffer.concat([be(16, 0), be(64, capacityBytes), be(16, flags)])));
      if (blocks !== null) client.write(optionReply(7, 3, Buffer.concat([be(16, 3), be(32, ...blocks)])));
      client.write(optionReply(7, 1));
      return;
    } else client.write(optionReply(option, 0x80000001));
  }
}

export async function readOption(client: Conversation): Promise<{ option: number; data: Buffer }> {
  const header = await client.read(16);
  return { option: header.readUInt32BE(8), data: await client.read(header.readUInt32BE(12)) };
}

export interface ScriptedRequest {
  readonly command: number;
  readonly flags: number;
  readonly cookie: Buffer;
  readonly offset: number;
  readonly length: number;
}

/** Without the payload of a write. */
export async function readRequest(client: Conversation): Promise<ScriptedRequest> {
  const header = await client.read(28);
  return {
    command: header.readUInt16BE(6),
    flags: header.readUInt16BE(4),
    cookie: Buffer.from(header.subarray(8, 16)),
    offset: Number(header.readBigUInt64BE(16)),
    length: header.readUInt32BE(24),
  };
}

export function simpleReply(cookie: Uint8Array, errno = 0): Buffer {
  return Buffer.concat([be(32, 0x67446698, errno), cookie]);
}

export function chunk(cookie: Uint8Array, type: number, body: Uint8Array, flags = 1): Buffer {
  return Buffer.concat([be(32, 0x668e33ef), be(16, flags, type), cookie, be(32, body.length), body]);
}

export function dataChunk(cookie: Uint8Array, offset: number, bytes: Uint8Array, flags = 1): Buffer {
  return chunk(cookie, 1, Buffer.concat([be(64, offset), bytes]), flags);
}

export function holeChunk(cookie: Uint8Array, offset: number, length: number, flags = 1): Buffer {
  return chunk(cookie, 2, Buffer.concat([be(64, offset), be(32, length)]), flags);
}

/** `extents`: length and flags in turn. */
export function statusChunk(cookie: Uint8Array, context: number, extents: readonly number[], flags = 1): Buffer {
  return chunk(cookie, 5, be(32, context, ...extents), flags);
}

export function errorChunk(cookie: Uint8Array, errno: number, text: string, flags = 1): Buffer {
  return chunk(cookie, 0x8001, Buffer.concat([be(32, errno), be(16, text.length), Buffer.from(text)]), flags);
}
