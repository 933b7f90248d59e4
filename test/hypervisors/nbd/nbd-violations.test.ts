import { describe, expect, it } from 'vitest';
import { NbdDisk } from '../../../hypervisors/nbd/nbd-disk.ts';
import { NbdProtocolViolation, NbdRequestFailed } from '../../../hypervisors/nbd/nbd-errors.ts';
import { parseNbdUri } from '../../../hypervisors/nbd/nbd-uri.ts';
import { collect } from './nbd-reading.ts';
import {
  be,
  chunk,
  dataChunk,
  type ExportShape,
  errorChunk,
  greeting,
  holeChunk,
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
const some = Buffer.alloc(4096, 7);

/** Two reads of 4096 bytes, at 8192 and at 65536, the first answered as the case says. */
type Answer = (asked: ScriptedRequest) => readonly Uint8Array[];

const brokenReads: readonly (readonly [title: string, says: RegExp, answer: Answer, shape?: Partial<ExportShape>])[] = [
  ['no magic', /0x6e6f7065 where a reply should begin/, () => [Buffer.from('nope, not a reply at all')]],
  ['an unknown cookie', /not pending/, () => [dataChunk(be(64, 77), 8192, some)]],
  ['a cookie above 32 bits', /not pending/, ({ cookie }) => [dataChunk(highBit(cookie), 8192, some)]],
  ['an answer twice', /not pending/, ({ cookie }) => [dataChunk(cookie, 8192, some), dataChunk(cookie, 8192, some)]],
  ['a simple reply', /has to be structured/, ({ cookie }) => [simpleReply(cookie), some]],
  ['data before the request', /outside the request/, ({ cookie }) => [dataChunk(cookie, 8191, some)]],
  ['data beyond the request', /outside the request/, ({ cookie }) => [dataChunk(cookie, 8193, some)]],
  ['data at 2^63', /outside the request/, ({ cookie }) => [dataChunk(cookie, 2 ** 63, some)]],
  [
    'more data than asked for',
    /a data chunk of 4097 bytes/,
    ({ cookie }) => [dataChunk(cookie, 8192, Buffer.alloc(4097))],
  ],
  ['no data in a data chunk', /a data chunk of 8 bytes/, ({ cookie }) => [dataChunk(cookie, 8192, Buffer.alloc(0))]],
  [
    'data of 4 GiB',
    /a data chunk of 4294967287 bytes/,
    ({ cookie }) => [be(32, 0x668e33ef), be(16, 1, 1), cookie, be(32, 0xffffffff)],
  ],
  [
    'data twice',
    /had arrived before/,
    ({ cookie }) => [dataChunk(cookie, 8192, some.subarray(0, 100), 0), dataChunk(cookie, 8291, some.subarray(0, 10))],
  ],
  [
    'a hole over data that came out of order',
    /had arrived before/,
    ({ cookie }) => [dataChunk(cookie, 9000, some.subarray(0, 100), 0), holeChunk(cookie, 8192, 809)],
  ],
  ['a missing end', /without the bytes at 12287/, ({ cookie }) => [dataChunk(cookie, 8192, some.subarray(1))]],
  [
    'a missing middle',
    /without the bytes at 8292/,
    ({ cookie }) => [
      dataChunk(cookie, 8192, some.subarray(0, 100), 0),
      dataChunk(cookie, 9000, some.subarray(0, 3288)),
    ],
  ],
  ['nothing at all', /without the bytes at 8192/, ({ cookie }) => [chunk(cookie, 0, Buffer.alloc(0))]],
  ['a hole of no bytes', /a hole of 0 bytes/, ({ cookie }) => [holeChunk(cookie, 8192, 0)]],
  ['a hole beyond the request', /outside the request/, ({ cookie }) => [holeChunk(cookie, 8192, 4097)]],
  ['a hole of another shape', /a hole in 8 bytes/, ({ cookie }) => [chunk(cookie, 2, be(64, 8192))]],
  ['an unknown chunk', /unknown type 99/, ({ cookie }) => [chunk(cookie, 99, some)]],
  ['unknown flags', /chunk flags 0x3/, ({ cookie }) => [dataChunk(cookie, 8192, some, 3)]],
  ['an empty chunk in between', /not the last/, ({ cookie }) => [chunk(cookie, 0, Buffer.alloc(0), 0)]],
  ['a final chunk with a body', /a final chunk with 1 bytes/, ({ cookie }) => [chunk(cookie, 0, Buffer.alloc(1))]],
  ['a block status', /not asked for/, ({ cookie }) => [statusChunk(cookie, 1, [4096, 0])]],
  ['an error too short', /an error in 5 bytes/, ({ cookie }) => [chunk(cookie, 0x8001, Buffer.alloc(5))]],
  [
    'an error text beyond the chunk',
    /an error text of 9 bytes/,
    ({ cookie }) => [chunk(cookie, 0x8001, Buffer.concat([be(32, 5), be(16, 9), Buffer.alloc(8)]))],
  ],
  [
    'an error text without end',
    /an error in 6000 bytes/,
    ({ cookie }) => [chunk(cookie, 0x8001, Buffer.alloc(6000, 1))],
  ],
  ['error number 0', /an error without a number/, ({ cookie }) => [errorChunk(cookie, 0, 'fine')]],
  [
    'an error elsewhere',
    /an error at 1, outside/,
    ({ cookie }) => [chunk(cookie, 0x8002, Buffer.concat([be(32, 5), be(16, 0), be(64, 1)]))],
  ],
  [
    'a structured reply that was never agreed on',
    /0x668e33ef where a reply should begin/,
    ({ cookie }) => [dataChunk(cookie, 8192, some)],
    { structured: false },
  ],
];

describe('NBD: a server that breaks the protocol', () => {
  it.for(brokenReads)('%s in the answer to a read', async ([, says, answer, shape]) => {
    await using server = await scriptedServer(async (client) => {
      await shakeHands(client, shape);
      const asked = await readRequest(client);
      client.write(...answer(asked));
    });
    await using disk = await NbdDisk.open(parseNbdUri(server.uri), {}, never);
    const reads = [8192, 65536].map((at) => disk.read(at, new Uint8Array(4096), never));
    const [first, second] = await Promise.allSettled(reads);
    const error = second?.status === 'rejected' ? second.reason : first;
    expect(error).toBeInstanceOf(NbdProtocolViolation);
    expect(String(error)).toMatch(says);
    expect(String(error)).toContain(server.uri);
    await expect(disk.read(0, new Uint8Array(1), never)).rejects.toBe(error);
  });

  const brokenStatuses: readonly (readonly [string, RegExp, Answer])[] = [
    ['another context', /number 9, which was never granted/, ({ cookie }) => [statusChunk(cookie, 9, [4096, 0])]],
    ['no context', /without the context a:b/, ({ cookie }) => [chunk(cookie, 0, Buffer.alloc(0))]],
    [
      'a context twice',
      /two block statuses/,
      ({ cookie }) => [statusChunk(cookie, 1, [512, 0], 0), statusChunk(cookie, 1, [512, 0])],
    ],
    ['no extents', /a block status in 4 bytes/, ({ cookie }) => [statusChunk(cookie, 1, [])]],
    ['half an extent', /a block status in 16 bytes/, ({ cookie }) => [statusChunk(cookie, 1, [512, 0, 512])]],
    ['an extent of nothing', /an extent of 0 bytes/, ({ cookie }) => [statusChunk(cookie, 1, [0, 0])]],
    ['an unaligned extent', /an extent of 513 bytes/, ({ cookie }) => [statusChunk(cookie, 1, [513, 0])]],
    ['an extent beyond the request', /beyond the request/, ({ cookie }) => [statusChunk(cookie, 1, [8192, 0, 512, 1])]],
    ['an extent beyond the disk', /beyond the disk/, ({ cookie }) => [statusChunk(cookie, 1, [1024 * 1024, 0])]],
    ['data', /reads none/, ({ cookie }) => [dataChunk(cookie, 4096, some)]],
    ['a hole', /reads nothing/, ({ cookie }) => [holeChunk(cookie, 4096, 4096)]],
    ['a simple reply', /has to be structured/, ({ cookie }) => [simpleReply(cookie)]],
    [
      'a status of 4 GiB',
      /a block status in 4294967292 bytes/,
      ({ cookie }) => [be(32, 0x668e33ef), be(16, 1, 5), cookie, be(32, 0xfffffffc)],
    ],
  ];

  it.for(brokenStatuses)('%s in the answer to a question for extents', async ([, says, answer]) => {
    await using server = await scriptedServer(async (client) => {
      await shakeHands(client, { contexts: ['a:b'], blocks: [512, 4096, 65536] });
      client.write(...answer(await readRequest(client)));
    });
    await using disk = await NbdDisk.open(parseNbdUri(server.uri), { contexts: ['a:b'] }, never);
    const asked = collect(disk.extents('a:b', 4096, 8192, never));
    await expect(asked).rejects.toThrow(NbdProtocolViolation);
    await expect(asked).rejects.toThrow(says);
  });

  const info = (kind: number, ...parts: readonly Uint8Array[]) => Buffer.concat([be(16, kind), ...parts]);
  const fine = optionReply(7, 3, info(0, be(64, 4096), be(16, 1)));
  const brokenHandshakes: readonly (readonly [string, RegExp, Uint8Array, readonly Uint8Array[]])[] = [
    ['another protocol', /does not greet as an NBD server/, Buffer.from('SSH-2.0-OpenSSH_9.2p1 Debian'), []],
    ['no magic in a reply', /without its magic/, greeting, [Buffer.alloc(20, 1)]],
    ['a reply to another option', /option 7 in place of 8/, greeting, [optionReply(7, 1)]],
    ['a reply of 1 GiB', /an option reply of 1073741824/, greeting, [optionReply(8, 1).fill(0x40, 16, 17)]],
    ['an unknown reply', /reply 77 to option 8/, greeting, [optionReply(8, 77)]],
    ['no size', /without saying its size/, greeting, [optionReply(8, 1), optionReply(7, 1)]],
    [
      'a size in 11 bytes',
      /in 11 bytes, not 12/,
      greeting,
      [optionReply(8, 1), optionReply(7, 3, info(0, Buffer.alloc(9)))],
    ],
    [
      'a size of 2^63',
      /an export of/,
      greeting,
      [optionReply(8, 1), optionReply(7, 3, info(0, be(64, 2 ** 63), be(16, 1)))],
    ],
    ['no flags', /deny being flags/, greeting, [optionReply(8, 1), optionReply(7, 3, info(0, be(64, 1), be(16, 0)))]],
    [
      'odd block sizes',
      /minimum 3,/,
      greeting,
      [optionReply(8, 1), fine, optionReply(7, 3, info(3, be(32, 3, 4096, 65536)))],
    ],
    [
      'huge blocks',
      /minimum 131072/,
      greeting,
      [optionReply(8, 1), fine, optionReply(7, 3, info(3, be(32, 131072, 131072, 131072)))],
    ],
    [
      'a maximum below the minimum',
      /maximum 0/,
      greeting,
      [optionReply(8, 1), fine, optionReply(7, 3, info(3, be(32, 512, 4096, 0)))],
    ],
    [
      'endless replies',
      /more than 10000 replies/,
      greeting,
      [optionReply(8, 1), ...Array.from({ length: 10_001 }, () => fine)],
    ],
  ];

  it.for(brokenHandshakes)('%s in the handshake', async ([, says, hello, replies]) => {
    await using server = await scriptedServer(async (client) => {
      client.write(hello);
      await client.read(4);
      for (const reply of replies) client.write(reply);
    });
    const opened = NbdDisk.open(parseNbdUri(server.uri), {}, never);
    await expect(opened).rejects.toThrow(NbdProtocolViolation);
    await expect(opened).rejects.toThrow(says);
  });

  it('grants of contexts that nobody asked for', async () => {
    await using server = await scriptedServer((client) => shakeHands(client, { contexts: ['a:b', 'c:d'] }));
    const opened = NbdDisk.open(parseNbdUri(server.uri), { contexts: ['a:b'] }, never);
    await expect(opened).rejects.toThrow(/grants the context c:d, which nobody asked for/);
  });

  it('bytes in plain behind the agreement to TLS are believed by nobody', async () => {
    let afterwards = Buffer.alloc(0);
    await using server = await scriptedServer(async (client) => {
      client.write(greeting);
      await client.read(4);
      const { option } = await readOption(client);
      client.write(optionReply(option, 1), optionReply(8, 1));
      client.socket.on('data', (bytes) => {
        afterwards = Buffer.concat([afterwards, Buffer.from(bytes)]);
      });
    });
    const opened = NbdDisk.open(parseNbdUri(server.uri.replace('nbd+', 'nbds+')), {}, never);
    await expect(opened).rejects.toThrow(NbdProtocolViolation);
    await expect(opened).rejects.toThrow(/20 bytes in plain after it agreed to TLS/);
    expect(afterwards.length).toBe(0);
  });
});

describe('NBD: a server that answers in odd but permitted ways', () => {
  const answered = async (answer: Answer, shape: Partial<ExportShape> = {}) => {
    await using server = await scriptedServer(async (client) => {
      await shakeHands(client, shape);
      client.write(...answer(await readRequest(client)));
    });
    await using disk = await NbdDisk.open(parseNbdUri(server.uri), {}, never);
    const into = new Uint8Array(4096).fill(99);
    await disk.read(8192, into, never);
    return into;
  };

  it('chunks come in any order, in any size, split anywhere', async () => {
    const bytes = Buffer.from(Array.from({ length: 4096 }, (_, i) => i % 251));
    const cuts = [0, 1, 7, 500, 1000, 1001, 3000, 4095, 4096];
    const into = await answered(({ cookie }) => {
      const pieces = cuts.slice(1).map((end, i) => [cuts[i] ?? 0, end] as const);
      const order = [7, 0, 3, 2, 6, 1, 5, 4].map((i) => pieces[i] ?? [0, 0]);
      return [
        ...order.map(([start, end]) => dataChunk(cookie, 8192 + start, bytes.subarray(start, end), 0)),
        chunk(cookie, 0, Buffer.alloc(0)),
      ];
    });
    expect(Buffer.compare(into, bytes)).toBe(0);
  });

  it('holes are filled with zeroes', async () => {
    const into = await answered(({ cookie }) => [
      holeChunk(cookie, 8192 + 96, 4000, 0),
      dataChunk(cookie, 8192, Buffer.alloc(96, 5)),
    ]);
    expect(into.subarray(0, 96).every((byte) => byte === 5)).toBe(true);
    expect(into.subarray(96).every((byte) => byte === 0)).toBe(true);
  });

  it('simple replies do where nothing else was agreed on', async () => {
    const into = await answered(({ cookie }) => [simpleReply(cookie), some], { structured: false });
    expect(Buffer.compare(into, some)).toBe(0);
  });

  it.for([
    { how: 'a simple reply', answer: (({ cookie }) => [simpleReply(cookie, 5)]) as Answer, structured: false },
    {
      how: 'a chunk',
      answer: (({ cookie }) => [errorChunk(cookie, 5, 'bad\u001b sector')]) as Answer,
      structured: true,
    },
    {
      how: 'a chunk after some data',
      answer: (({ cookie }) => [
        dataChunk(cookie, 8192, some.subarray(0, 10), 0),
        chunk(cookie, 0x8002, Buffer.concat([be(32, 5), be(16, 3), Buffer.from('bad'), be(64, 9000)])),
      ]) as Answer,
      structured: true,
    },
  ])('an error in $how fails that request alone', async ({ answer, structured }) => {
    await using server = await scriptedServer(async (client) => {
      await shakeHands(client, { structured });
      client.write(...answer(await readRequest(client)));
      const next = await readRequest(client);
      client.write(...(structured ? [dataChunk(next.cookie, next.offset, some)] : [simpleReply(next.cookie), some]));
    });
    await using disk = await NbdDisk.open(parseNbdUri(server.uri), {}, never);
    const failed = disk.read(8192, new Uint8Array(4096), never);
    await expect(failed).rejects.toThrow(NbdRequestFailed);
    await expect(failed).rejects.toMatchObject({ errno: 'EIO' });
    await expect(failed).rejects.toThrow(/read of 4096 bytes at 8192 failed at the server \(EIO/);
    // What goes to a terminal holds no escape sequence.
    await expect(failed).rejects.not.toThrow('\u001b');
    await disk.read(0, new Uint8Array(4096), never);
  });
});

function highBit(cookie: Buffer): Buffer {
  const other = Buffer.from(cookie);
  other[0] = 1;
  return other;
}
