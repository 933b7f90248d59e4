import { randomBytes } from 'node:crypto';
import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ChangeTrackingLost, SourceChanged } from '../../hypervisors/errors.ts';
import type { Extent, MachineSnapshot, ReferencePoint } from '../../hypervisors/hypervisor.ts';
import { connectImages } from '../../hypervisors/image/image-connection.ts';
import { readImageInfo } from '../../hypervisors/image/image-info.ts';
import type { ImageDisk, ImageFormat } from '../../hypervisors/image/image-machine.ts';
import { startBitmap } from '../../hypervisors/image/qcow2-tracking.ts';
import { QemuToolFailed } from '../../hypervisors/nbd/qemu-nbd.ts';
import { describeHypervisorContract, type HypervisorLab } from '../contract/hypervisor.ts';
import { nbdNeeds, runNbdTool, startNbdkit, startQemuNbd } from '../peers/nbd.ts';

const needs = await nbdNeeds();
const never = new AbortController().signal;
const mebibyte = 2 ** 20;
const capacityBytes = 8 * mebibyte;

describe.skipIf(needs !== null)(`images in other formats than raw (${needs ?? 'real qemu-nbd'})`, () => {
  describeHypervisorContract('qcow2 without tracking', () => imageLab('qcow2', 'none'));
  describeHypervisorContract('qcow2 with bitmaps', () => imageLab('qcow2', 'bitmap'));
  describeHypervisorContract('vmdk', () => imageLab('vmdk', 'none'));
  describeHypervisorContract('vhdx', () => imageLab('vhdx', 'none'));
  describeHypervisorContract('an NBD export', exportLab);

  describe('a qcow2 image', () => {
    let folder: string;
    let path: string;
    beforeEach(async () => {
      folder = await mkdtemp(join(tmpdir(), 'failkit-formats-'));
      path = join(folder, 'disk.qcow2');
      await makeImage(path, 'qcow2');
    });
    afterEach(() => rm(folder, { recursive: true, force: true }));

    it('is not read where it holds nothing', async () => {
      await using taken = await snapshot({ label: 'root', path, format: 'qcow2' });
      const extents = await extentsOf(taken, null);
      const dataBytes = extents.filter(({ zero }) => !zero).reduce((sum, { length }) => sum + length, 0);
      expect(dataBytes).toBe(mebibyte);
    });

    it('tells exactly what was written since the snapshot before, large trims as zeros', async () => {
      const since = await takeAndClose();
      await qemuIo(path, 'discard 0 1M', 'write -P 7 2M 4k', 'discard 3M 64k', 'write -P 9 5M 100k');
      await using taken = await snapshot(tracked());
      // To read a little is cheaper than to ask whether it reads as zero.
      expect(await extentsOf(taken, since)).toEqual([
        { offset: 0, length: mebibyte, zero: true },
        { offset: 2 * mebibyte, length: 65_536, zero: false },
        { offset: 3 * mebibyte, length: 65_536, zero: false },
        { offset: 5 * mebibyte, length: 131_072, zero: false },
      ]);
    });

    it('keeps the bitmap of the last point until another run has read by it, whatever fails between', async () => {
      const published = await takeAndClose();
      await qemuIo(path, 'write -P 1 2M 64k');
      // Runs that end before they read, and one that reads but never publishes.
      await takeAndClose();
      await takeAndClose(published);
      await qemuIo(path, 'write -P 2 3M 64k');
      const taken = await snapshot(tracked());
      expect((await extentsOf(taken, published)).map(({ offset }) => offset)).toEqual([2 * mebibyte, 3 * mebibyte]);
      await taken[Symbol.asyncDispose]();
      expect((await bitmapsOf(path)).length).toBe(2);
    });

    it('of a machine that is started while a run ends keeps its bitmaps, and the run does not fail by that', async () => {
      const since = await takeAndClose();
      const info = await readImageInfo(path, 'qcow2', never);
      const tracking = await startBitmap(path, info, never);
      tracking.bitmapSince(since ?? new Uint8Array());
      await takeAndClose();
      const before = await bitmapsOf(path);
      await using server = await startQemuNbd(['--format=qcow2', path]);
      await tracking.tidy(never);
      await server.end();
      expect(await bitmapsOf(path)).toEqual(before);
      await tracking.tidy(never);
      expect((await bitmapsOf(path)).length).toBe(before.length - 1);
    });

    it('does not trust a bitmap that is gone, inconsistent or switched off, nor one beside internal snapshots', async () => {
      const since = await takeAndClose();
      const name = new TextDecoder().decode(since ?? new Uint8Array());
      await runNbdTool('qemu-img', ['bitmap', '--disable', '-f', 'qcow2', path, name]);
      await expectLost(since, /switched off/);
      await runNbdTool('qemu-img', ['bitmap', '--enable', '-f', 'qcow2', path, name]);
      await runNbdTool('qemu-img', ['snapshot', '-c', 'before', path]);
      await expectLost(since, /internal snapshots/);
      await runNbdTool('qemu-img', ['snapshot', '-d', 'before', path]);
      const server = await startQemuNbd(['--format=qcow2', path]);
      await server.stop();
      await expectLost(since, /inconsistent/);
      await expectLost(new TextEncoder().encode('failkit-none'), /no longer has the bitmap/);
    });

    it('that a machine has open is refused, with what QEMU says', async () => {
      await using _ = await startQemuNbd(['--format=qcow2', path]);
      await expect(snapshot(tracked())).rejects.toThrow(QemuToolFailed);
      await expect(snapshot(tracked())).rejects.toThrow(/lock/);
    });

    it('that is laid over another image is watched down to the bottom', async () => {
      const overlay = join(folder, 'overlay.qcow2');
      await runNbdTool('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', path, '-F', 'qcow2', overlay]);
      await using taken = await snapshot({ label: 'root', path: overlay, format: 'qcow2' });
      await extentsOf(taken, null);
      await using file = await open(path, 'r+');
      await file.utimes(new Date(), new Date(0));
      await expect(taken.settleConsistency(never)).rejects.toThrow(SourceChanged);
    });

    it('that is none is refused', async () => {
      await writeFile(path, randomBytes(mebibyte));
      await expect(snapshot({ label: 'root', path, format: 'qcow2' })).rejects.toThrow(QemuToolFailed);
    });

    const tracked = (): ImageDisk => ({ label: 'root', path, format: 'qcow2', tracking: 'bitmap' });

    /** A whole run as far as the source sees it; without `since` one that never asked. */
    async function takeAndClose(since?: ReferencePoint): Promise<ReferencePoint> {
      await using taken = await snapshot(tracked());
      if (since !== undefined) await extentsOf(taken, since);
      return taken.disks[0]?.referencePoint ?? null;
    }

    async function expectLost(since: ReferencePoint, why: RegExp): Promise<void> {
      await using taken = await snapshot(tracked());
      const listing = extentsOf(taken, since);
      await expect(listing).rejects.toThrow(ChangeTrackingLost);
      await expect(listing).rejects.toThrow(why);
    }
  });
});

async function snapshot(disk: ImageDisk): Promise<MachineSnapshot> {
  const connection = connectImages([{ name: 'web-1', disks: [disk] }]);
  return connection.snapshot({ name: 'web-1' }, { quiesce: 'prefer', whenChanging: 'refuse' }, never);
}

async function extentsOf(taken: MachineSnapshot, since: ReferencePoint): Promise<readonly Extent[]> {
  const extents: Extent[] = [];
  for await (const extent of taken.disks[0]?.changedExtents(since, never) ?? []) extents.push(extent);
  return extents;
}
/** One MiB of data at the start, nothing behind it. */
async function makeImage(path: string, format: ImageFormat): Promise<void> {
  const raw = `${path}.raw`;
  await using file = await open(raw, 'w');
  await file.truncate(capacityBytes);
  await file.write(randomBytes(mebibyte), 0, mebibyte, 0);
  await runNbdTool('qemu-img', ['convert', '-f', 'raw', '-O', format, raw, path]);
  await rm(raw);
}

async function qemuIo(path: string, ...commands: readonly string[]): Promise<void> {
  const args = commands.flatMap((command) => ['-c', command]);
  await runNbdTool('qemu-io', ['-f', 'qcow2', '-d', 'unmap', ...args, path]);
}

async function bitmapsOf(path: string): Promise<readonly string[]> {
  const info = JSON.parse(await runNbdTool('qemu-img', ['info', '--output=json', path]));
  return (info['format-specific'].data.bitmaps ?? []).map(({ name }: { name: string }) => name);
}

async function imageLab(format: ImageFormat, tracking: 'none' | 'bitmap'): Promise<HypervisorLab> {
  const folder = await mkdtemp(join(tmpdir(), 'failkit-formats-lab-'));
  const labels = ['root', 'data'];
  const pathOf = (label: string): string => join(folder, `${label}.img`);
  for (const label of labels) await makeImage(pathOf(label), format);
  const disks = labels.map((label) => ({ label, path: pathOf(label), format, tracking }));
  return {
    connection: connectImages([{ name: 'web-1', disks }]),
    machineName: 'web-1',
    async content() {
      const contents = new Map<string, Uint8Array>();
      for (const label of labels) {
        const raw = join(folder, `${label}.raw`);
        await runNbdTool('qemu-img', ['convert', '-f', format, '-O', 'raw', pathOf(label), raw]);
        contents.set(label, await readFile(raw));
      }
      return contents;
    },
    async write(label, offset, bytes) {
      const patch = join(folder, 'patch');
      await writeFile(patch, bytes);
      await runNbdTool('qemu-io', ['-f', format, '-c', `write -s ${patch} ${offset} ${bytes.length}`, pathOf(label)]);
    },
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true }),
  };
}

/** One disk with an odd size, one by a server of its own. */
async function exportLab(): Promise<HypervisorLab> {
  const folder = await mkdtemp(join(tmpdir(), 'failkit-export-lab-'));
  const paths = new Map([
    ['root', join(folder, 'root.raw')],
    ['data', join(folder, 'data.raw')],
  ]);
  await writeFile(paths.get('root') ?? '', randomBytes(300_001));
  await writeFile(paths.get('data') ?? '', randomBytes(2 * mebibyte));
  const servers = await Promise.all([...paths.values()].map((path) => startNbdkit(['--readonly', 'file', path])));
  const disks = [...paths.keys()].map((label, i) => ({ label, nbd: servers[i]?.uri ?? '' }));
  return {
    connection: connectImages([{ name: 'web-1', disks }]),
    machineName: 'web-1',
    async content() {
      const contents = new Map<string, Uint8Array>();
      for (const [label, path] of paths) contents.set(label, await readFile(path));
      return contents;
    },
    async write(label, offset, bytes) {
      await using file = await open(paths.get(label) ?? '', 'r+');
      await file.write(bytes, 0, bytes.length, offset);
    },
    async [Symbol.asyncDispose]() {
      for (const server of servers) await server[Symbol.asyncDispose]();
      await rm(folder, { recursive: true });
    },
  };
}
