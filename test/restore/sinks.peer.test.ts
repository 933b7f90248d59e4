import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openExportSink, openQcow2Sink } from '../../restore/sinks/nbd-sink.ts';
import { OutputExists, OutputUnusable } from '../../restore/sinks/raw-sink.ts';
import { nbdNeeds, runNbdTool, startNbdkit } from '../peers/nbd.ts';

const needs = await nbdNeeds();
const never = new AbortController().signal;
const mebibyte = 2 ** 20;
const capacityBytes = 4 * mebibyte + 512;

describe.skipIf(needs !== null)(`restoring through NBD (${needs ?? 'real qemu-nbd and nbdkit'})`, () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'failkit-sinks-'));
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));

  describe('a qcow2 file', () => {
    it('holds what was written and zeros elsewhere, and has its name only when it is complete', async () => {
      const { path, sink } = await qcow2();
      const tail = randomBytes(512);
      const middle = randomBytes(mebibyte);
      await sink.write(mebibyte, middle, never);
      await sink.write(capacityBytes - 512, tail, never);
      expect(existsSync(path)).toBe(false);
      await sink.complete(never);
      await sink[Symbol.asyncDispose]();
      const expected = new Uint8Array(capacityBytes);
      expected.set(middle, mebibyte);
      expected.set(tail, capacityBytes - 512);
      expect(Buffer.compare(await rawOf(path), expected)).toBe(0);
      await runNbdTool('qemu-img', ['check', '-q', path]);
    });

    it('that was left unfinished is gone on with, and read back', async () => {
      const first = await qcow2();
      const bytes = randomBytes(65_536);
      await first.sink.write(65_536, bytes, never);
      await first.sink[Symbol.asyncDispose]();
      const { path, sink } = await qcow2();
      expect(sink.mayHoldContent).toBe(true);
      const found = new Uint8Array(65_536);
      await sink.read(65_536, found, never);
      expect(Buffer.compare(found, bytes)).toBe(0);
      await sink.complete(never);
      expect((await rawOf(path)).subarray(65_536, 131_072).equals(bytes)).toBe(true);
    });

    it.each([
      ['torn', 'a power cut'],
      ['no image at all', 'a kill'],
    ])('that was left %s by %s is made anew', async (how) => {
      const first = await qcow2();
      await first.sink.write(0, randomBytes(2 * mebibyte), never);
      await first.sink[Symbol.asyncDispose]();
      const partial = join(folder, 'disk.qcow2.a-1-b.partial');
      await using file = await open(partial, 'r+');
      if (how === 'torn') {
        // The first cluster that the refcounts know of is free all of a sudden.
        const table = Buffer.alloc(8);
        await file.read(table, 0, 8, 48);
        const block = Buffer.alloc(8);
        await file.read(block, 0, 8, Number(table.readBigUInt64BE()));
        await file.write(Buffer.alloc(2 * 16), 0, 2 * 16, Number(block.readBigUInt64BE()));
      } else await file.truncate(100);
      const { path, sink } = await qcow2();
      expect(sink.mayHoldContent).toBe(false);
      const bytes = randomBytes(65_536);
      await sink.write(65_536, bytes, never);
      await sink.complete(never);
      const expected = new Uint8Array(capacityBytes);
      expected.set(bytes, 65_536);
      expect(Buffer.compare(await rawOf(path), expected)).toBe(0);
    });

    it('that exists is left alone unless told otherwise', async () => {
      await writeFile(join(folder, 'disk.qcow2'), 'mine');
      await expect(qcow2()).rejects.toThrow(OutputExists);
      expect(await readFile(join(folder, 'disk.qcow2'), 'utf8')).toBe('mine');
    });

    const qcow2 = async () => {
      const path = join(folder, 'disk.qcow2');
      const sink = await openQcow2Sink({ path, capacityBytes, force: false, contentName: 'a-1-b' }, never);
      return { path, sink };
    };

    async function rawOf(path: string): Promise<Buffer> {
      const raw = join(folder, 'raw');
      await runNbdTool('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', path, raw]);
      return readFile(raw);
    }
  });

  describe('an export', () => {
    it('takes what is written, and shows what it held', async () => {
      const path = await rawFile(capacityBytes);
      await using server = await startNbdkit(['file', path]);
      await using sink = await openExportSink({ uri: server.uri, capacityBytes, force: true }, never);
      expect([sink.startsZeroed, sink.mayHoldContent]).toEqual([false, true]);
      const bytes = randomBytes(mebibyte);
      await sink.write(65_536, bytes, never);
      await sink.complete(never);
      expect((await readFile(path)).subarray(65_536, 65_536 + mebibyte).equals(bytes)).toBe(true);
    });

    it.each([
      ['is not overwritten without force', { force: false }, [], OutputExists, /--force/],
      ['that is read-only is refused', { force: true }, ['--readonly'], OutputUnusable, /read-only/],
    ])('%s', async (_, { force }, flags, error, says) => {
      await using server = await startNbdkit([...flags, 'file', await rawFile(capacityBytes)]);
      const opening = openExportSink({ uri: server.uri, capacityBytes, force }, never);
      await expect(opening).rejects.toThrow(error);
      await expect(opening).rejects.toThrow(says);
    });

    it('that is too small is refused before anything is written', async () => {
      await using server = await startNbdkit(['file', await rawFile(mebibyte)]);
      const opening = openExportSink({ uri: server.uri, capacityBytes, force: true }, never);
      await expect(opening).rejects.toThrow(/fewer than the disk/);
    });

    async function rawFile(bytes: number): Promise<string> {
      const path = join(folder, 'export.raw');
      await using file = await open(path, 'w');
      await file.truncate(bytes);
      return path;
    }
  });
});
