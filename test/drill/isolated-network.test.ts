import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { FrameReader, IsolatedNetwork } from '../../drill/isolated-network.ts';

let folder = '';
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'failkit-hub-'));
});
afterEach(() => rm(folder, { recursive: true }));

test('a frame reaches every other machine, and not its sender', async () => {
  await using hub = await IsolatedNetwork.open(join(folder, 'hub'));
  const machines = await Promise.all([1, 2, 3].map(() => joinHub(hub)));
  const heard = machines.map((machine) => {
    const frames: string[] = [];
    const reader = new FrameReader((frame) => frames.push(frame.subarray(4).toString()));
    machine.on('data', (bytes: Buffer) => reader.take(bytes));
    return frames;
  });
  // The hub hears of a machine a moment after that has connected.
  while (heard[1]?.length === 0 || heard[2]?.length === 0) {
    machines[0]?.write(frameOf('who is there?'));
    await sleep(5);
  }
  // In two parts, the second with the beginning of another frame.
  const both = Buffer.concat([frameOf('hello'), frameOf('again')]);
  machines[0]?.write(both.subarray(0, 3));
  await sleep(5);
  machines[0]?.write(both.subarray(3));
  while (heard.slice(1).some((frames) => frames.at(-1) !== 'again')) await sleep(5);
  expect(heard.map((frames) => frames.slice(-2))).toEqual([[], ['hello', 'again'], ['hello', 'again']]);
  for (const machine of machines) machine.destroy();
});

test('whoever speaks something else is put off', async () => {
  await using hub = await IsolatedNetwork.open(join(folder, 'hub'));
  const stranger = await joinHub(hub);
  stranger.write('GET / HTTP/1.1\r\n\r\n');
  stranger.resume();
  await once(stranger, 'close');
});

test('frames come whole, however they are cut', () => {
  const sent = ['', 'a', 'x'.repeat(9000)];
  const stream = Buffer.concat(sent.map(frameOf));
  for (const step of [1, 2, 7, 4096]) {
    const frames: string[] = [];
    const reader = new FrameReader((frame) => frames.push(frame.subarray(4).toString()));
    for (let at = 0; at < stream.length; at += step) expect(reader.take(stream.subarray(at, at + step))).toBe(true);
    expect(frames).toEqual(sent);
  }
});

function frameOf(text: string): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(text.length);
  return Buffer.concat([length, Buffer.from(text)]);
}

async function joinHub(hub: IsolatedNetwork): Promise<Socket> {
  const socket = connect(hub.socketPath);
  await once(socket, 'connect');
  return socket;
}
