import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { diskExtents, readDisk } from '../../../hypervisors/vhdx/chain-reader.ts';
import { openChain } from '../../../hypervisors/vhdx/image-chain.ts';
import { openLocalFile } from '../../../hypervisors/vhdx/local-file.ts';
import { VhdxWriter } from '../../../hypervisors/vhdx/vhdx-writer.ts';
import { blockTableAt, makeVhdx, mebibyte, sum } from './vhdx-maker.ts';

const never = new AbortController().signal;
const tebibyte = 2 ** 40;
/** A table of that many bytes that was held whole would be 512 MiB. */
const memoryBytesMax = 96 * mebibyte;

it('a disk of 64 TiB in blocks of 1 MiB is listed and read in bounded memory', { timeout: 300_000 }, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'failkit-large-'));
  const path = join(folder, 'large.vhdx');
  // The maker writes a small disk; its size and its table are made large afterwards.
  const small = makeVhdx({
    capacityBytes: mebibyte,
    sectorBytes: 512,
    blockBytes: mebibyte,
    blocks: new Map(),
    parent: null,
    dataWriteGuid: '0a0b0c0d-1111-2222-3333-444455556666',
  });
  const fd = openSync(path, 'w');
  const tableBytes = 513 * mebibyte;
  ftruncateSync(fd, blockTableAt + tableBytes + 2 * mebibyte);
  for (const { at, bytes } of small.parts) writeSync(fd, enlarged(at, bytes, tableBytes), 0, null, at);
  const blocks = (64 * tebibyte) / mebibyte;
  for (const [i, block] of [123_456, blocks - 1].entries()) {
    const place = blockTableAt + tableBytes + i * mebibyte;
    const entry = Buffer.alloc(8);
    entry.writeBigUInt64LE(BigInt(place) + 6n);
    writeSync(fd, entry, 0, 8, blockTableAt + (block + Math.floor(block / 4096)) * 8);
    writeSync(fd, Buffer.alloc(mebibyte, 1 + i), 0, mebibyte, place);
  }
  closeSync(fd);
  const before = memoryBytes();
  await using chain = await openChain(path, { openFile: openLocalFile, onWindows: false }, never);
  if (chain === null) throw new Error('it is there');
  const data: number[] = [];
  for await (const { offset, length, zero } of diskExtents(chain, never))
    if (!zero) data.push(offset / mebibyte, length);
  const used = memoryBytes() - before;
  expect(data).toEqual([123_456, mebibyte, blocks - 1, mebibyte]);
  const last = Buffer.alloc(4096);
  await readDisk(chain, 64 * tebibyte - 4096, last, never);
  expect(last.every((byte) => byte === 2)).toBe(true);
  expect(used).toBeLessThan(memoryBytesMax);
  rmSync(folder, { recursive: true });
});

it('a disk of 64 TiB is written in bounded memory, and its far end is where it should be', {
  timeout: 300_000,
}, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'failkit-large-'));
  const path = join(folder, 'written.vhdx');
  {
    await using file = await open(path, 'w+');
    const writer = await VhdxWriter.create(file, 64 * tebibyte);
    const [piece] = await writer.place(file.fd, 64 * tebibyte - 4096, 4096);
    await file.write(Buffer.alloc(4096, 9), 0, 4096, piece?.offset ?? 0);
  }
  await using chain = await openChain(path, { openFile: openLocalFile, onWindows: false }, never);
  if (chain === null) throw new Error('it is there');
  const last = Buffer.alloc(8192);
  await readDisk(chain, 64 * tebibyte - 8192, last, never);
  expect([last[4095], last[4096], last[8191]]).toEqual([0, 9, 9]);
  rmSync(folder, { recursive: true });
});

/** Of metadata and region tables; the checksums are those of the maker again. */
function enlarged(at: number, bytes: Uint8Array, tableBytes: number): Buffer {
  const copy = Buffer.from(bytes);
  if (at === 2 * mebibyte) copy.writeBigUInt64LE(BigInt(64 * tebibyte), 65_536 + 8);
  if (at === 196_608 || at === 262_144) {
    copy.writeUInt32LE(tableBytes, 40);
    sum(copy);
  }
  return at === blockTableAt ? Buffer.alloc(1) : copy;
}

function memoryBytes(): number {
  globalThis.gc?.();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}
