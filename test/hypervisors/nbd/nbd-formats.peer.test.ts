import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { baseAllocation, isDirty, NbdDisk, readsAsZero } from '../../../hypervisors/nbd/nbd-disk.ts';
import { parseNbdUri } from '../../../hypervisors/nbd/nbd-uri.ts';
import { nbdNeeds, runNbdTool, startNbdkit, startQemuNbd } from '../../peers/nbd.ts';
import { Random } from '../../random.ts';
import { collect, readAll } from './nbd-reading.ts';

const needs = await nbdNeeds();
const never = new AbortController().signal;
const capacityBytes = 24 * 1024 * 1024;
const blockBytes = 64 * 1024;

/** As qemu-img and qemu-nbd call them; `holes`: whether the server tells them from data. */
const formats = [
  { format: 'raw', create: [], holes: true },
  { format: 'qcow2', create: [], holes: true },
  { format: 'vmdk', create: ['-o', 'subformat=monolithicSparse'], holes: true },
  { format: 'vmdk', create: ['-o', 'subformat=streamOptimized'], holes: true },
  { format: 'vpc', create: ['-o', 'force_size=on'], holes: true },
  { format: 'vhdx', create: [], holes: false },
  { format: 'vdi', create: [], holes: true },
] as const;

describe.skipIf(needs !== null)(needs ?? 'NBD, image formats', () => {
  let folder: string;
  let content: Uint8Array;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'failkit-nbd-formats-'));
    content = await makeImage(join(folder, 'source.raw'));
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  const convert = async (format: string, create: readonly string[]) => {
    const path = join(folder, `${format}-${create.join('').replace(/\W/g, '-')}`);
    await runNbdTool('qemu-img', ['convert', '-f', 'raw', '-O', format, ...create, join(folder, 'source.raw'), path]);
    return path;
  };

  it.for(formats)('$format $create reads back, and its extents tell the truth', async ({ format, create, holes }) => {
    const path = await convert(format, create);
    await using server = await startQemuNbd(['--read-only', `--format=${format}`, path]);
    await using disk = await NbdDisk.open(parseNbdUri(server.uri), { contexts: [baseAllocation] }, never);
    expect(disk.capacityBytes).toBe(capacityBytes);
    expect(disk.can.write).toBe(false);
    expect(Buffer.compare(await readAll(disk), content)).toBe(0);
    const extents = await collect(disk.extents(baseAllocation, 0, capacityBytes, never));
    let data = 0;
    for (const { offset, length, flags } of extents) {
      if ((flags & readsAsZero) === 0) data += length;
      else expect(content.subarray(offset, offset + length).every((byte) => byte === 0)).toBe(true);
    }
    expect(extents.map(({ offset }) => offset)).toEqual(
      [0, ...extents.map((extent) => extent.offset + extent.length)].slice(0, -1),
    );
    expect(extents.at(-1)).toMatchObject({ offset: capacityBytes - (extents.at(-1)?.length ?? 0) });
    expect(data > 0 && data < capacityBytes).toBe(holes);
  });

  it('a dirty bitmap tells what was written since, and nothing else', async () => {
    const path = await convert('qcow2', []);
    await runNbdTool('qemu-img', ['bitmap', '--add', '-g', String(blockBytes), path, 'since']);
    const writes = [3 * blockBytes + 512, 100 * blockBytes, 101 * blockBytes, capacityBytes - 512];
    await runNbdTool('qemu-io', ['-f', 'qcow2', ...writes.flatMap((at) => ['-c', `write -P 7 ${at} 512`]), path]);
    await using server = await startQemuNbd(['--read-only', '--format=qcow2', '--bitmap=since', path]);
    const context = 'qemu:dirty-bitmap:since';
    const options = { contexts: [context, baseAllocation] };
    await using disk = await NbdDisk.open(parseNbdUri(server.uri), options, never);
    const extents = await collect(disk.extents(context, 0, capacityBytes, never));
    expect(extents.filter(({ flags }) => (flags & isDirty) !== 0)).toEqual([
      { offset: 3 * blockBytes, length: blockBytes, flags: 1 },
      { offset: 100 * blockBytes, length: 2 * blockBytes, flags: 1 },
      { offset: capacityBytes - blockBytes, length: blockBytes, flags: 1 },
    ]);
    // Any part of the disk can be asked for, at any byte.
    expect(await collect(disk.extents(context, 100 * blockBytes + 7, 2 * blockBytes, never))).toEqual([
      { offset: 100 * blockBytes + 7, length: 2 * blockBytes - 7, flags: 1 },
      { offset: 102 * blockBytes, length: 7, flags: 0 },
    ]);
  });

  it('a bitmap records what is written through the server itself', async () => {
    const path = await convert('qcow2', []);
    await runNbdTool('qemu-img', ['bitmap', '--add', '-g', String(blockBytes), path, 'live']);
    {
      await using server = await startQemuNbd(['--format=qcow2', path]);
      await using disk = await NbdDisk.open(parseNbdUri(server.uri), {}, never);
      await disk.write(7 * blockBytes, new Uint8Array(blockBytes).fill(1), never);
      await disk.flush(never);
      await disk[Symbol.asyncDispose]();
      await server.end();
    }
    await using server = await startQemuNbd(['--read-only', '--format=qcow2', '--bitmap=live', path]);
    const contexts = ['qemu:dirty-bitmap:live'];
    await using disk = await NbdDisk.open(parseNbdUri(server.uri), { contexts }, never);
    const extents = await collect(disk.extents('qemu:dirty-bitmap:live', 0, capacityBytes, never));
    expect(extents.filter(({ flags }) => flags === isDirty)).toEqual([
      { offset: 7 * blockBytes, length: blockBytes, flags: 1 },
    ]);
  });

  it.for([1, 511, 513, 4097])('a disk of %i bytes beyond a block is read to its last byte', async (extra) => {
    const path = join(folder, `odd-${extra}`);
    const odd = content.subarray(0, 2 * blockBytes + extra);
    await writeFile(path, odd);
    await using kit = await startNbdkit(['--readonly', 'file', path]);
    await using disk = await NbdDisk.open(parseNbdUri(kit.uri), { contexts: [baseAllocation] }, never);
    expect(disk.capacityBytes).toBe(odd.length);
    expect(Buffer.compare(await readAll(disk), odd)).toBe(0);
    expect((await collect(disk.extents(baseAllocation, 0, odd.length, never))).at(-1)).toMatchObject({ flags: 0 });
    await using qemu = await startQemuNbd(['--read-only', '--format=raw', path]);
    await using same = await NbdDisk.open(parseNbdUri(qemu.uri), { contexts: [baseAllocation] }, never);
    // qemu-nbd serves whole sectors, the last one filled with zeroes, or the bytes as they are.
    const served = await readAll(same);
    expect(Buffer.compare(served.subarray(0, odd.length), odd)).toBe(0);
    expect(served.length - odd.length).toBeLessThan(512);
    await collect(same.extents(baseAllocation, 0, same.capacityBytes, never));
  });
});

/** Random bytes and holes in turn, none of it aligned; the second third is one hole, which every format can tell. */
async function makeImage(path: string): Promise<Uint8Array> {
  const random = new Random(7);
  await using file = await open(path, 'w');
  await file.truncate(capacityBytes);
  for (let at = 0; at < capacityBytes; at += 300_000 + random.below(900_000)) {
    if (Math.floor((3 * (at + 200_000)) / capacityBytes) === 1) continue;
    const bytes = new Uint8Array(Math.min(1 + random.below(200_000), capacityBytes - at));
    for (let i = 0; i < bytes.length; i += 1) bytes[i] = random.below(256);
    await file.write(bytes, 0, bytes.length, at);
  }
  return readFile(path);
}
