/** Proper sessions with some of the client's bytes spoiled, several at once, while a well-behaved client reads and writes. */
import { setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import { expect } from 'vitest';
import { NbdDisk } from '../../../../hypervisors/nbd/nbd-disk.ts';
import { parseNbdUri } from '../../../../hypervisors/nbd/nbd-uri.ts';
import { be } from '../scripted-server.ts';
import { type Spoil, spoiled, spoilOf } from '../spoil.ts';
import { MemoryExport } from './memory-export.ts';
import { RawClient } from './raw-client.ts';
import { serve } from './served.ts';

const never = new AbortController().signal;
const capacityBytes = 256 * 1024;
const settleMsMax = 8_000;
const stallMs = 300;
/** What the server may hold for its clients, and the fuzzer's own bytes. */
const allocatedBytesMax = 32 * 1024 * 1024;
const bytesMax = 8 * 1024 * 1024;

interface Manner {
  readonly pieceBytes: number;
  /** Otherwise it closes its side right after its last byte. */
  readonly lingers: boolean;
}

export async function fuzzRequests(numRuns: number): Promise<void> {
  const victim = new MemoryExport('victim', Buffer.alloc(capacityBytes, 1));
  const other = new MemoryExport('other', Buffer.alloc(capacityBytes, 2));
  const bounds = { handshakeMs: stallMs, stallMs, bytesMax, connectionBytesMax: bytesMax / 2 };
  await using served = await serve([victim, other], { defaultExport: 'victim', bounds });
  await using valid = await NbdDisk.open(parseNbdUri(served.uri('other')), {}, never);
  // Unspoiled it is a session that works, or nothing below would mean anything.
  await session(served.socket, Buffer.concat(parts()), { pieceBytes: 61, lingers: true });
  await expect.poll(() => served.events.at(-1), { timeout: settleMsMax }).toBe('disconnected: goodbye');
  await fc.assert(
    fc.asyncProperty(fc.array(scenario(), { minLength: 1, maxLength: 4 }), async (scenarios) => {
      const before = process.memoryUsage().arrayBuffers;
      const start = performance.now();
      const attack = scenarios.map(({ spoils, ...manner }) =>
        session(served.socket, spoiled(Buffer.concat(parts()), spoils), manner),
      );
      const mark = Math.floor(performance.now()) % 256;
      await valid.write(4096, Buffer.alloc(4096, mark), never);
      const found = Buffer.alloc(8192);
      await valid.read(0, found, never);
      expect([found[0], found[4096]]).toEqual([2, mark]);
      await Promise.all(attack);
      await expect.poll(() => served.server.connections, { timeout: settleMsMax }).toBe(1);
      expect(served.server.heldBytes).toBe(0);
      expect(performance.now() - start).toBeLessThan(settleMsMax);
      expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(allocatedBytesMax);
    }),
    { numRuns },
  );
  const known = /^(connected|failed: |disconnected: (goodbye|NbdProtocolViolation|NbdConnectionLost|NbdTimedOut))/;
  expect(served.events.filter((event) => !known.test(event))).toEqual([]);
}

function scenario(): fc.Arbitrary<Manner & { readonly spoils: readonly Spoil[] }> {
  const lengths = parts().map(({ length }) => length);
  const seams = lengths.map((_, i) => lengths.slice(0, i).reduce((sum, length) => sum + length, 0));
  const all = lengths.reduce((sum, length) => sum + length, 0);
  return fc.record({
    spoils: fc.array(spoilOf(seams, all), { minLength: 1, maxLength: 4 }),
    pieceBytes: fc.constantFrom(1_000_000, 4096, 61),
    lingers: fc.oneof({ weight: 4, arbitrary: fc.constant(false) }, { weight: 1, arbitrary: fc.constant(true) }),
  });
}

/** Until the server hangs up; a spoiled goodbye leaves both waiting for the other, and then we go. */
async function session(socket: string, bytes: Buffer, { pieceBytes, lingers }: Manner): Promise<void> {
  using client = await RawClient.connect(socket);
  for (let at = 0; at < bytes.length; at += pieceBytes) client.send(bytes.subarray(at, at + pieceBytes));
  if (!lingers) client.socket.end();
  await Promise.race([client.hungUpOn(), sleep(2 * stallMs)]);
}

/** Handshake, every kind of option, every kind of request, goodbye. */
function parts(): Buffer[] {
  const name = Buffer.concat([be(32, 6), Buffer.from('victim')]);
  const context = Buffer.concat([be(32, 1, 15), Buffer.from('base:allocation')]);
  return [
    be(32, 3),
    ...[opt(3), opt(8), opt(5), opt(9, Buffer.concat([name, be(32, 0)])), opt(10, Buffer.concat([name, context]))],
    opt(6, Buffer.concat([name, be(16, 2, 1, 3)])),
    opt(77, Buffer.from('what is that')),
    opt(7, Buffer.concat([name, be(16, 0)])),
    request(0, 0, 4096),
    request(1, 8192, 512, { payload: Buffer.alloc(512, 7) }),
    request(7, 0, capacityBytes),
    request(6, 4096, 4096, { flags: 2 }),
    request(1, capacityBytes, 16, { payload: Buffer.alloc(16, 7) }),
    request(4, 0, 4096, { flags: 1 }),
    request(3, 0, 0),
    request(0, 1, 200_000, { flags: 4 }),
    request(2, 0, 0),
  ];
}

function opt(number: number, data: Uint8Array = Buffer.alloc(0)): Buffer {
  return Buffer.concat([Buffer.from('IHAVEOPT'), be(32, number, data.length), data]);
}

function request(number: number, offset: number, length: number, { flags = 0, payload = Buffer.alloc(0) } = {}) {
  return Buffer.concat([be(32, 0x25609513), be(16, flags, number), be(64, 7, offset), be(32, length), payload]);
}
