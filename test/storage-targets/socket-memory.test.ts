import { once } from 'node:events';
import { Agent, createServer, get, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { buffer } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readBody } from '../../storage-targets/answer-body.ts';
import { memoryOf, SocketMemory, withSocketMemory } from '../../storage-targets/socket-memory.ts';

const never = new AbortController().signal;
const length = 2 ** 20;
const agent = withSocketMemory(new Agent({ keepAlive: true, maxSockets: 1 }));
let server: Server;

/** Different everywhere, and for each path. */
function contentOf(path: string): Buffer {
  const words = new Uint32Array(length / 4);
  for (let i = 0; i < words.length; i++) words[i] = Math.imul(i + path.length, 0x9e3779b1);
  return Buffer.from(words.buffer);
}

beforeAll(async () => {
  server = createServer((request, response) => {
    const path = request.url ?? '';
    if (!path.startsWith('/chunked')) response.setHeader('content-length', length);
    response.end(contentOf(path));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
});
afterAll(() => {
  agent.destroy();
  server.close();
});

async function ask(path: string): Promise<IncomingMessage> {
  const { port } = server.address() as AddressInfo;
  const [answer] = await once(get({ host: '127.0.0.1', port, path, agent }), 'response');
  return answer;
}

async function take(path: string, pace?: (most: number) => number | Promise<number>): Promise<Uint8Array> {
  const body = await ask(path);
  const range = { offset: 0, length };
  const answer = { body, announced: length, contentRange: `bytes 0-${length - 1}/${length}` };
  return await readBody(answer, range, 'key', never, { into: new Uint8Array(length), ...(pace && { pace }) });
}

describe('a connection with memory of its own', () => {
  it('gives every answer its bytes, one after the other', async () => {
    for (const path of ['/a', '/of', '/one', '/chunked'])
      expect(Buffer.compare(await take(path), contentOf(path))).toBe(0);
  });

  it('gives the bytes as they came to whoever takes them later', async () => {
    const answer = await ask('/late');
    expect(memoryOf(answer)).not.toBeNull();
    await sleep(20);
    expect(Buffer.compare(await buffer(answer), contentOf('/late'))).toBe(0);
  });

  it.each(['/held', '/chunked-held'])('gives the bytes as they came while they are held back (%s)', async (path) => {
    const slow = (most: number) => sleep(1).then(() => Math.min(most, 50_000));
    expect(Buffer.compare(await take(path, slow), contentOf(path))).toBe(0);
  });

  it('reads into the same memory again while every byte is taken at once', () => {
    const memory = new SocketMemory();
    const { buffer: before } = memory.bytes;
    using _taking = memory.startTaking();
    memory.handOn(100, (bytes) => memory.noteTaken(bytes));
    expect(memory.bytes.buffer).toBe(before);
  });

  it('never reads over bytes that somebody may still hold', () => {
    const memory = new SocketMemory();
    const held: Uint8Array[] = [];
    const hold = (bytes: Uint8Array) => void held.push(bytes);
    memory.bytes.fill(1);
    memory.handOn(10, hold);
    memory.bytes.fill(2);
    using _taking = memory.startTaking();
    memory.handOn(10, (bytes) => {
      memory.noteTaken(bytes.subarray(0, 9));
      hold(bytes);
    });
    memory.bytes.fill(3);
    expect(held.map((bytes) => [bytes[0], bytes[9]])).toEqual([
      [1, 1],
      [2, 2],
    ]);
  });
});
