/** A proper session with some of the server's bytes spoiled: whatever comes of it has a name, soon, in little memory. */
import fc from 'fast-check';
import { expect } from 'vitest';
import { NbdDisk } from '../../../hypervisors/nbd/nbd-disk.ts';
import { parseNbdUri } from '../../../hypervisors/nbd/nbd-uri.ts';
import { collect } from './nbd-reading.ts';
import {
  be,
  chunk,
  dataChunk,
  errorChunk,
  greeting,
  holeChunk,
  optionReply,
  scriptedServer,
  statusChunk,
} from './scripted-server.ts';
import { spoiled, spoilOf } from './spoil.ts';

const never = new AbortController().signal;
const capacityBytes = 64 * 1024;
const readBytes = 8192;
const requests = 5;
const settleMsMax = 5_000;
/** Two block statuses of the largest size that is believed, and change. */
const allocatedBytesMax = 24 * 1024 * 1024;

export async function fuzzReplies(numRuns: number): Promise<void> {
  const handshake = handshakeParts();
  const replies = replyParts();
  // Unspoiled it is a session that works, or nothing below would mean anything.
  const whole = await session(Buffer.concat(handshake), Buffer.concat(replies), 61);
  expect(whole.map(({ status }) => status).join(' ')).toBe('fulfilled fulfilled fulfilled rejected fulfilled');
  const scenario = fc.record({
    handshake: fc.oneof(
      { weight: 2, arbitrary: fc.constant([]) },
      {
        weight: 1,
        arbitrary: fc.array(spoilOf(seamsOf(handshake), bytesOf(handshake)), { minLength: 1, maxLength: 3 }),
      },
    ),
    replies: fc.array(spoilOf(seamsOf(replies), bytesOf(replies)), { minLength: 1, maxLength: 4 }),
    pieceBytes: fc.constantFrom(1_000_000, 4096, 61),
  });
  await fc.assert(
    fc.asyncProperty(scenario, async (spoils) => {
      const before = process.memoryUsage().arrayBuffers;
      const start = performance.now();
      const outcomes = await session(
        spoiled(Buffer.concat(handshake), spoils.handshake),
        spoiled(Buffer.concat(replies), spoils.replies),
        spoils.pieceBytes,
      );
      for (const outcome of outcomes)
        if (outcome.status === 'rejected')
          expect(outcome.reason).toMatchObject({ code: expect.stringMatching(/^NBD_/) });
      expect(performance.now() - start).toBeLessThan(settleMsMax);
      expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(allocatedBytesMax);
    }),
    { numRuns },
  );
}

/** Four reads and a question for extents, all at once. */
async function session(handshake: Uint8Array, replies: Uint8Array, pieceBytes: number) {
  await using server = await scriptedServer(async (client) => {
    client.write(handshake);
    // Four options of the client come before its requests: flags, structured replies, contexts, the export.
    await client.read(4 + 16 + (16 + 4 + 4 + 4 + 3) + (16 + 4 + 2 + 2) + 28 * requests);
    for (let at = 0; at < replies.length; at += pieceBytes) client.write(replies.subarray(at, at + pieceBytes));
    client.socket.end();
  });
  // A spoiled handshake may leave both waiting for the other; the timeout is what ends that.
  const timeouts = { handshakeMs: 100, responseMs: 1_000 };
  const opened = NbdDisk.open(parseNbdUri(server.uri), { contexts: ['a:b'], timeouts }, never);
  const [open] = await Promise.allSettled([opened]);
  if (open?.status !== 'fulfilled') return [open];
  await using disk = open.value;
  // A size that was spoiled into another size is no lie that a client could see.
  if (disk.capacityBytes !== capacityBytes) return [];
  return await Promise.allSettled([
    ...[0, 1, 2, 3].map((i) => disk.read(i * readBytes, new Uint8Array(readBytes), never)),
    collect(disk.extents('a:b', 0, capacityBytes, never)),
  ]);
}

function handshakeParts(): Buffer[] {
  return [
    greeting,
    optionReply(8, 1),
    optionReply(10, 4, Buffer.concat([be(32, 1), Buffer.from('a:b')])),
    optionReply(10, 1),
    optionReply(7, 3, Buffer.concat([be(16, 0), be(64, capacityBytes), be(16, 1)])),
    optionReply(7, 3, Buffer.concat([be(16, 3), be(32, 1, 4096, 1024 * 1024)])),
    optionReply(7, 1),
  ];
}

/** Cookies count from 1. */
function replyParts(): Buffer[] {
  const cookie = (number: number) => be(64, number);
  return [
    dataChunk(cookie(1), 0, Buffer.alloc(readBytes, 1)),
    statusChunk(cookie(5), 1, [4096, 0, 4096, 3, capacityBytes - 8192, 1]),
    dataChunk(cookie(2), readBytes + 100, Buffer.alloc(readBytes - 100, 2), 0),
    holeChunk(cookie(2), readBytes, 100),
    errorChunk(cookie(4), 5, 'bad sector', 0),
    dataChunk(cookie(3), 2 * readBytes, Buffer.alloc(readBytes, 3), 0),
    chunk(cookie(4), 0, Buffer.alloc(0)),
    chunk(cookie(3), 0, Buffer.alloc(0)),
  ];
}

function seamsOf(parts: readonly Buffer[]): number[] {
  return parts.map((_, index) => bytesOf(parts.slice(0, index)));
}

function bytesOf(parts: readonly Buffer[]): number {
  return parts.reduce((bytes, part) => bytes + part.length, 0);
}
