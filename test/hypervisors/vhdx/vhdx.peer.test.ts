import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  closeSync,
  copyFileSync,
  existsSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { copyFile, readFile, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { crc32 } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { capacityOf, diskExtents, readDisk } from '../../../hypervisors/vhdx/chain-reader.ts';
import { type ImageChain, openChain } from '../../../hypervisors/vhdx/image-chain.ts';
import { openLocalFile } from '../../../hypervisors/vhdx/local-file.ts';
import { openVhdxSink } from '../../../restore/sinks/vhdx-sink.ts';
import { nbdNeeds, runNbdTool } from '../../peers/nbd.ts';
import { peerFolder, peerNeeds } from '../../peers/server-process.ts';
import { Random } from '../../random.ts';
import { linksTo, madeChain } from './made-chain.ts';
import { madeVhdChain } from './made-vhd.ts';
import { bytesOf } from './memory-file.ts';
import { contentOf } from './read-all.ts';
import { blockTableAt, logAt, type MadeBlock, makeLogEntry, makeVhdx, mebibyte, type VhdxPlan } from './vhdx-maker.ts';

const never = new AbortController().signal;
const sevenZip = await peerNeeds('seven-zip');
const samples = await peerNeeds('sample-disks');
const qemu = await nbdNeeds();
const pieceBytes = 4 * mebibyte;

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'failkit-vhdx-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

async function open(path: string): Promise<ImageChain> {
  const chain = await openChain(path, { openFile: openLocalFile, onWindows: false }, never);
  if (chain === null) throw new Error(`there is no ${path}`);
  return chain;
}

/** What 7-Zip says that the disk holds; parents lie beside it. */
async function bySevenZip(path: string, type: 'VHDX' | 'VHD' = 'VHDX'): Promise<Buffer> {
  const tool = join(peerFolder('seven-zip'), '7zz');
  const options = { encoding: 'buffer' as const, maxBuffer: 128 * mebibyte };
  const { stdout } = await promisify(execFile)(tool, ['x', '-so', `-t${type}`, path], options);
  return stdout;
}

async function byQemu(path: string, format: 'vhdx' | 'vpc' = 'vhdx'): Promise<Buffer> {
  const raw = join(folder, 'by-qemu.raw');
  await runNbdTool('qemu-img', ['convert', '-f', format, '-O', 'raw', path, raw]);
  return readFile(raw);
}

describe.skipIf(sevenZip !== null)(`differencing chains (${sevenZip ?? 'real 7-Zip'})`, () => {
  const chains = [1, 2, 3, 4, 5, 6, 7, 8].flatMap((depth) =>
    [512, 4096].flatMap((sectorBytes) =>
      [1, 2, 3, 4].map((seed) => ({ depth, sectorBytes: sectorBytes as 512 | 4096, seed })),
    ),
  );

  it(`${chains.length} of them, of every depth to 8 and both sector sizes, read as 7-Zip reads them`, {
    timeout: 600_000,
  }, async () => {
    for (const { depth, sectorBytes, seed } of chains) {
      const random = new Random(depth * 1000 + sectorBytes + seed);
      const { layers, top, content } = madeChain(random, { depth, sectorBytes, onlyDefined: true });
      for (const { name, bytes } of layers) writeFileSync(join(folder, name), bytes);
      const path = join(folder, top.name);
      await using chain = await open(path);
      const ours = await contentOf(chain);
      const what = `depth ${depth}, sectors of ${sectorBytes}, seed ${seed}`;
      expect(Buffer.compare(ours, content), what).toBe(0);
      expect(Buffer.compare(ours, await bySevenZip(path)), what).toBe(0);
    }
  });
});

/** A sector bitmap covers so much, whatever the size of blocks. */
const chunkBytes = (sectorBytes: number): number => 2 ** 23 * sectorBytes;

describe.skipIf(sevenZip !== null)(`chains over several chunks (${sevenZip ?? 'real 7-Zip'})`, () => {
  it.for([512, 4096] as const)(
    'with sectors of %i bytes read as 7-Zip reads them',
    {
      timeout: 600_000,
    },
    async (sectorBytes) => {
      const random = new Random(sectorBytes);
      const blockBytes = mebibyte * (sectorBytes / 512);
      const capacityBytes = chunkBytes(sectorBytes) + 3 * blockBytes + 6 * sectorBytes;
      const last = chunkBytes(sectorBytes) / blockBytes;
      const layers = [0, 1, 2].map((depth) => {
        const blocks = new Map<number, MadeBlock>();
        for (const block of [0, 5, last - 2, last - 1, last, last + 1, last + 3])
          blocks.set(block, randomBlock(random, depth > 0, blockBytes, sectorBytes));
        return writeLayer(depth, { capacityBytes, sectorBytes, blockBytes, blocks });
      });
      await using chain = await open(join(folder, layers.at(-1) ?? ''));
      const ours = await sumOf(chain);
      expect(ours.dataBytes).toBeGreaterThan(2 * blockBytes);
      // It reads 32 GiB of zeros in seconds, and would send them through a pipe in a minute.
      const tool = join(peerFolder('seven-zip'), '7zz');
      const { stdout } = await promisify(execFile)(tool, [
        't',
        '-tVHDX',
        '-scrcCRC32',
        join(folder, layers.at(-1) ?? ''),
      ]);
      expect(Number(/^Size: +(\d+)/m.exec(stdout)?.[1])).toBe(capacityBytes);
      expect(/^CRC32 +for data: +([0-9A-F]{8})/m.exec(stdout)?.[1]).toBe(ours.sum);
    },
  );

  function randomBlock(random: Random, isChild: boolean, blockBytes: number, sectorBytes: number): MadeBlock {
    const bytes = Buffer.alloc(blockBytes, 1 + random.below(255));
    for (let at = 0; at < blockBytes; at += sectorBytes) bytes.writeUInt32LE(random.below(2 ** 32), at);
    if (!isChild) return { state: 'full', bytes };
    if (random.chance(0.2)) return { state: 'zero' };
    return { state: 'partial', bytes, has: Array.from({ length: blockBytes / sectorBytes }, () => random.chance(0.5)) };
  }

  function writeLayer(depth: number, plan: Pick<VhdxPlan, 'capacityBytes' | 'sectorBytes' | 'blockBytes' | 'blocks'>) {
    const guid = (i: number): string => `0a0b0c0d-0000-4000-8000-00000000000${i}`;
    const name = (i: number): string => `layer-${i}.${i === 0 ? '' : 'a'}vhdx`;
    const parent =
      depth === 0 ? null : { dataWriteGuid: guid(depth - 1), entries: linksTo(name(depth - 1), guid(depth - 1)) };
    const { sizeBytes, parts } = makeVhdx({ ...plan, parent, dataWriteGuid: guid(depth) });
    const fd = openSync(join(folder, name(depth)), 'w');
    ftruncateSync(fd, sizeBytes);
    for (const { at, bytes } of parts) writeSync(fd, bytes, 0, bytes.length, at);
    closeSync(fd);
    return name(depth);
  }

  /** CRC-32 of the whole disk; zeros are counted in, not read. */
  async function sumOf(chain: ImageChain) {
    let [sum, dataBytes] = [0, 0];
    for await (const { offset, length, zero } of diskExtents(chain, never)) {
      if (zero) sum = afterZeros(sum, length);
      for (let at = offset; !zero && at < offset + length; at += mebibyte) {
        const bytes = Buffer.alloc(Math.min(mebibyte, offset + length - at));
        await readDisk(chain, at, bytes, never);
        sum = crc32(bytes, sum);
        dataBytes += bytes.length;
      }
    }
    return { sum: sum.toString(16).toUpperCase().padStart(8, '0'), dataBytes };
  }
});

/** A CRC-32 after so many zeros more: one of them is a linear step, and twice as many are that step's square. */
function afterZeros(sum: number, length: number): number {
  const apply = (step: readonly number[], state: number): number =>
    step.reduce((found, column, bit) => ((state >>> bit) & 1 ? found ^ column : found), 0);
  let step: readonly number[] = Array.from({ length: 32 }, (_, bit) => {
    let state = (1 << bit) >>> 0;
    for (let i = 0; i < 8; i++) state = state & 1 ? (state >>> 1) ^ 0xedb88320 : state >>> 1;
    return state;
  });
  let state = ~sum;
  for (let left = length; left > 0; left = Math.floor(left / 2)) {
    if (left % 2 === 1) state = apply(step, state);
    const half = step;
    step = half.map((column) => apply(half, column));
  }
  return ~state >>> 0;
}

describe.skipIf(sevenZip !== null)(`chains of VHD files (${sevenZip ?? 'real 7-Zip'})`, () => {
  it('read as 7-Zip reads them', async () => {
    for (const depth of [1, 2, 3, 4]) {
      const { layers, top, content } = madeVhdChain(new Random(20 + depth), depth, 0);
      for (const { name, bytes } of layers) writeFileSync(join(folder, name), bytes);
      const path = join(folder, top.name);
      await using chain = await open(path);
      const ours = await contentOf(chain);
      expect(Buffer.compare(ours, content), `depth ${depth}`).toBe(0);
      expect(Buffer.compare(ours, await bySevenZip(path, 'VHD')), `depth ${depth}`).toBe(0);
    }
  });
});

describe.skipIf(samples !== null || qemu !== null)(
  `images of Windows and Virtual PC (${samples ?? qemu ?? 'real samples'})`,
  () => {
    const sample = (name: string): string => join(peerFolder('sample-disks'), name);

    it.for([
      ['iotest-dynamic-1G.vhdx', 'vhdx'],
      ['test-disk2vhd.vhdx', 'vhdx'],
      ['d2v-zerofilled.vhd', 'vpc'],
    ] as const)('%s reads as QEMU reads it', { timeout: 300_000 }, async ([name, format]) => {
      await using chain = await open(sample(name));
      const raw = join(folder, 'by-qemu.raw');
      await runNbdTool('qemu-img', ['convert', '-f', format, '-O', 'raw', sample(name), raw]);
      await using bytes = await openLocalFile(raw, never);
      expect(bytes?.sizeBytes).toBe(capacityOf(chain));
      expect(await dataHash(chain)).toEqual(await rawHash(chain, raw));
    });

    it.for(['hyperv2012r2-dynamic.vhd', 'virtualpc-dynamic.vhd'])(
      '%s, which is empty, has nothing to read',
      async (name) => {
        await using chain = await open(sample(name));
        expect(capacityOf(chain)).toBeGreaterThan(2 ** 30);
        for await (const extent of diskExtents(chain, never))
          expect(extent).toEqual({ offset: 0, length: capacityOf(chain), zero: true });
      },
    );

    it('a dirty log reads as it does after QEMU has replayed it, and the file stays as it was', {
      timeout: 300_000,
    }, async () => {
      const path = join(folder, 'dirty.vhdx');
      await copyFile(sample('iotest-dirtylog-10G-4M.vhdx'), path);
      const before = createHash('sha256')
        .update(await readFile(path))
        .digest('hex');
      const ours = await (async () => {
        await using chain = await open(path);
        return await dataHash(chain);
      })();
      expect(
        createHash('sha256')
          .update(await readFile(path))
          .digest('hex'),
      ).toBe(before);
      await runNbdTool('qemu-img', ['check', '-q', '-r', 'all', '-f', 'vhdx', path]);
      await using replayed = await open(path);
      expect(await dataHash(replayed)).toEqual(ours);
      const pattern = Buffer.alloc(18 * mebibyte, 0xa5);
      const start = Buffer.alloc(pattern.length);
      await readDisk(replayed, 0, start, never);
      expect(Buffer.compare(start, pattern)).toBe(0);
    });
  },
);

describe.skipIf(qemu !== null)(`logs that were not replayed (${qemu ?? 'real qemu-img'})`, () => {
  it('read as they do after QEMU has replayed them', { timeout: 300_000 }, async () => {
    for (let seed = 1; seed <= dirtyLogs; seed++) {
      const path = join(folder, `dirty-${seed}.vhdx`);
      await writeFile(path, dirtyImage(new Random(seed)));
      const ours = await (async () => {
        await using chain = await open(path);
        return await contentOf(chain);
      })();
      await runNbdTool('qemu-img', ['check', '-q', '-r', 'all', '-f', 'vhdx', path]);
      expect(Buffer.compare(ours, await byQemu(path)), `seed ${seed}`).toBe(0);
    }
  });
});

const dirtyLogs = 12;

/**
 * Entries of zeros and data, over blocks and over the table of blocks, and what an earlier log left. None goes round the end of the log:
 * QEMU replays such a one in part, and says that all is well.
 */
function dirtyImage(random: Random): Buffer {
  const guid = '0a0b0c0d-1111-2222-3333-444455556666';
  const logGuid = '77777777-1111-2222-3333-444455556666';
  const blocks = new Map<number, MadeBlock>(
    [0, 2, 3].map((i) => [i, { state: 'full', bytes: Buffer.alloc(mebibyte, i + 1) }]),
  );
  const capacityBytes = 5 * mebibyte;
  const plan = {
    capacityBytes,
    sectorBytes: 512,
    blockBytes: mebibyte,
    blocks,
    parent: null,
    dataWriteGuid: guid,
    logGuid,
  } as const;
  const bytes = bytesOf(makeVhdx(plan));
  const place = (entry: Buffer, at: number): void => {
    for (let done = 0; done < entry.length; done += 4096)
      entry.copy(bytes, logAt + ((at + done) % mebibyte), done, done + 4096);
  };
  const tail = 4096 * random.below(128);
  for (let i = 0; i < 5; i++)
    place(
      makeLogEntry(guid, 3 + i, 0, bytes.length, [{ at: bytes.length - 4096, bytes: 4096 }]),
      tail + mebibyte / 2 - 65_536 + 8192 * i,
    );
  let at = tail;
  const dataAt = bytes.length - 3 * mebibyte;
  for (let i = 0; i < 1 + random.below(8); i++) {
    const writes = Array.from({ length: 1 + random.below(6) }, () => {
      const to = dataAt + 4096 * random.below(700);
      return {
        at: to,
        bytes: random.chance(0.3) ? 4096 * (1 + random.below(8)) : Buffer.alloc(4096, 1 + random.below(255)),
      };
    });
    if (random.chance(0.3)) {
      // A block that is gone with that: explicit zeros.
      const table = Buffer.from(bytes.subarray(blockTableAt, blockTableAt + 4096));
      table.writeBigUInt64LE(2n, 8 * 2);
      writes.push({ at: blockTableAt, bytes: table });
    }
    const entry = makeLogEntry(logGuid, 20 + i, tail, bytes.length, writes);
    place(entry, at);
    at = (at + entry.length) % mebibyte;
  }
  return bytes;
}

/** Of all that is said to hold data: the rest reads as zero. */
async function dataHash(chain: ImageChain): Promise<string> {
  return hashOf(chain, (at, into) => readDisk(chain, at, into, never));
}

/** The same places of a raw image; what lies between them has to be zeros. */
async function rawHash(chain: ImageChain, raw: string): Promise<string> {
  await using file = await openLocalFile(raw, never);
  const read = async (at: number, into: Uint8Array): Promise<void> => file?.read([{ offset: at, into }], never);
  const zeros = Buffer.alloc(pieceBytes);
  for await (const { offset, length, zero } of diskExtents(chain, never))
    for (let at = offset; zero && at < offset + length; at += pieceBytes) {
      const into = Buffer.alloc(Math.min(pieceBytes, offset + length - at));
      await read(at, into);
      expect(Buffer.compare(into, zeros.subarray(0, into.length))).toBe(0);
    }
  return await hashOf(chain, read);
}

async function hashOf(chain: ImageChain, read: (at: number, into: Uint8Array) => Promise<void>): Promise<string> {
  const hash = createHash('sha256');
  for await (const { offset, length, zero } of diskExtents(chain, never))
    for (let at = offset; !zero && at < offset + length; at += pieceBytes) {
      const into = Buffer.alloc(Math.min(pieceBytes, offset + length - at));
      await read(at, into);
      hash.update(`${at}`).update(into);
    }
  return hash.digest('hex');
}

describe.skipIf(qemu !== null)(`images that QEMU makes (${qemu ?? 'real qemu-img'})`, () => {
  it.for([
    ['a dynamic VHDX', 'vhdx', ['-o', 'subformat=dynamic,block_size=1M']],
    ['a fixed VHDX', 'vhdx', ['-o', 'subformat=fixed']],
    ['a dynamic VHD', 'vpc', ['-o', 'subformat=dynamic,force_size=on']],
    ['a fixed VHD', 'vpc', ['-o', 'subformat=fixed,force_size=on']],
  ] as const)('%s reads as what it was made from', async ([, format, options]) => {
    const random = new Random(5);
    const content = Buffer.alloc(9 * mebibyte);
    for (let i = 0; i < 30; i++)
      content.fill(1 + random.below(255), random.below(content.length), random.below(content.length));
    content.fill(0, 3 * mebibyte, 5 * mebibyte);
    await writeFile(join(folder, 'content.raw'), content);
    const path = join(folder, `made.${format}`);
    await runNbdTool('qemu-img', ['convert', '-f', 'raw', '-O', format, ...options, join(folder, 'content.raw'), path]);
    await using chain = await open(path);
    expect(Buffer.compare(await contentOf(chain), content)).toBe(0);
  });
});

describe.skipIf(sevenZip !== null || qemu !== null)(
  `a VHDX that is restored (${sevenZip ?? qemu ?? 'real QEMU and 7-Zip'})`,
  () => {
    const capacityBytes = 70 * mebibyte + 6 * 512;
    const options = () => ({ path: join(folder, 'restored.vhdx'), capacityBytes, force: false, contentName: 'x' });

    it('holds the disk, says QEMU and says 7-Zip, and as many blocks as were written', async () => {
      const content = Buffer.alloc(capacityBytes);
      const { path } = options();
      {
        await using sink = await openVhdxSink(options(), never);
        const random = new Random(9);
        const writes = Array.from({ length: 40 }, () => 40 * mebibyte + random.below(capacityBytes - 41 * mebibyte));
        await Promise.all(
          writes.map(async (at, i) => {
            const bytes = Buffer.alloc(200_000, 1 + i);
            for (const other of writes.slice(i + 1)) if (Math.abs(other - at) < bytes.length) return;
            bytes.copy(content, at);
            await sink.write(at, bytes, never);
          }),
        );
        await sink.complete(never);
      }
      expect(Buffer.compare(await byQemu(path), content)).toBe(0);
      expect(await runNbdTool('qemu-img', ['check', '-f', 'vhdx', path])).toMatch(/No errors/);
      expect(Buffer.compare(await bySevenZip(path), content)).toBe(0);
      await using chain = await open(path);
      expect(Buffer.compare(await contentOf(chain), content)).toBe(0);
      // Headers, log, metadata and table; two blocks of three.
      expect((await stat(path)).size).toBe((4 + 2 * 32) * mebibyte);
    });

    it('is gone on with where it stopped, and begun anew where it was torn', async () => {
      const partial = `${options().path}.x.partial`;
      {
        await using sink = await openVhdxSink(options(), never);
        await sink.write(mebibyte, Buffer.alloc(4096, 7), never);
      }
      copyFileSync(partial, join(folder, 'torn'));
      {
        await using sink = await openVhdxSink(options(), never);
        expect(sink.mayHoldContent).toBe(true);
        const into = Buffer.alloc(8192);
        await sink.read(mebibyte, into, never);
        expect(Buffer.compare(into, Buffer.concat([Buffer.alloc(4096, 7), Buffer.alloc(4096)]))).toBe(0);
      }
      writeFileSync(partial, (await readFile(join(folder, 'torn'))).subarray(0, 20 * mebibyte));
      await using sink = await openVhdxSink(options(), never);
      expect(sink.mayHoldContent).toBe(false);
      await sink.complete(never);
      expect(existsSync(partial)).toBe(false);
      expect(Buffer.compare(await byQemu(options().path), Buffer.alloc(capacityBytes))).toBe(0);
    });
  },
);
