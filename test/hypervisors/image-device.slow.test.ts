import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { SourceChanged, SourceNotFound } from '../../hypervisors/errors.ts';
import type { SnapshotOptions } from '../../hypervisors/hypervisor.ts';
import { deviceNumber } from '../../hypervisors/image/block-device.ts';
import { connectImages } from '../../hypervisors/image/image-connection.ts';
import { describeHypervisorContract } from '../contract/hypervisor.ts';

const run = promisify(execFile);
const refuse: SnapshotOptions = { quiesce: 'prefer', whenChanging: 'refuse' };
const mark: SnapshotOptions = { quiesce: 'prefer', whenChanging: 'mark-inconsistent' };
const never = new AbortController().signal;
const capacityBytes = 4 * 1024 * 1024 + 512;
const hasLoopDevices = await canAttachLoopDevice();
const title = hasLoopDevices ? 'a block device' : 'a block device: needs loop devices (root, losetup)';

interface LoopDevice extends AsyncDisposable {
  readonly path: string;
  readonly folder: string;
}

describe('deviceNumber', () => {
  it('splits what stat reports the way the kernel does', () => {
    expect(deviceNumber(0x0700n)).toBe('7:0');
    expect(deviceNumber(0x801n)).toBe('8:1');
    expect(deviceNumber(259n * 256n + 3n)).toBe('259:3');
    // Minor 300 = 0x12c: its upper bits lie above the major.
    expect(deviceNumber((0x100n << 12n) | (253n << 8n) | 0x2cn)).toBe('253:300');
  });
});

describe.skipIf(!hasLoopDevices)(title, () => {
  let device: LoopDevice;
  beforeEach(async () => {
    device = await attachLoopDevice();
  });
  afterEach(async () => {
    await device[Symbol.asyncDispose]();
  });

  describeHypervisorContract('image on block devices', async () => {
    const other = await attachLoopDevice();
    const paths = new Map([
      ['root', device.path],
      ['data', other.path],
    ]);
    const disks = [...paths].map(([label, path]) => ({ label, path }));
    return {
      connection: connectImages([{ name: 'web-1', disks }]),
      machineName: 'web-1',
      content: async () => {
        const contents = new Map<string, Uint8Array>();
        for (const [label, path] of paths) contents.set(label, await readFile(path));
        return contents;
      },
      write: (label, offset, bytes) => writeTo(paths.get(label) ?? '', offset, bytes),
      [Symbol.asyncDispose]: () => other[Symbol.asyncDispose](),
    };
  });

  it('is refused when somebody wrote it meanwhile, even if the write still waits in the page cache', async () => {
    await using taken = await snapshotOf(device.path, refuse);
    await writeTo(device.path, 4096, randomBytes(512));
    const outcome = taken.settleConsistency(never);
    await expect(outcome).rejects.toThrow(SourceChanged);
    await expect(outcome).rejects.toThrow(/sectors written/);
  });

  it('is marked inconsistent when the policy allows it', async () => {
    await using taken = await snapshotOf(device.path, mark);
    await writeTo(device.path, 4096, randomBytes(512));
    expect(await taken.settleConsistency(never)).toBe('inconsistent');
  });

  it('can not be claimed by a mount while it is read', async () => {
    await run('mkfs.ext4', ['-q', device.path]);
    await using _taken = await snapshotOf(device.path, refuse);
    await expect(mount(device, 'rw')).rejects.toThrow(/busy|already mounted/);
  });

  it('is refused at once while it is mounted for writing, and read when the mount is read-only', async () => {
    await run('mkfs.ext4', ['-q', device.path]);
    {
      await using _mounted = await mount(device, 'rw');
      await expect(snapshotOf(device.path, refuse)).rejects.toThrow(SourceChanged);
      await expect(snapshotOf(device.path, refuse)).rejects.toThrow(/it is mounted, or part of another device/);
      await using taken = await snapshotOf(device.path, mark);
      expect(await taken.settleConsistency(never)).toBe('inconsistent');
    }
    await using _mounted = await mount(device, 'ro');
    await using taken = await snapshotOf(device.path, refuse);
    expect(await taken.settleConsistency(never)).toBe('crash-consistent');
  });

  it('is refused while the kernel counts no writes to it', async () => {
    const queue = `/sys/block/${device.path.slice('/dev/'.length)}/queue/iostats`;
    await writeFile(queue, '0');
    try {
      await expect(snapshotOf(device.path, refuse)).rejects.toThrow(/keeps no write counters/);
    } finally {
      await writeFile(queue, '1');
    }
  });

  it('is refused when it has no medium', async () => {
    await run('losetup', ['-d', device.path]);
    const outcome = snapshotOf(device.path, refuse);
    await expect(outcome).rejects.toThrow(SourceNotFound);
    await expect(outcome).rejects.toThrow(/is empty \(0 bytes\)/);
  });
});

function snapshotOf(path: string, options: SnapshotOptions) {
  const machine = { name: 'web-1', disks: [{ label: 'root', path }] };
  return connectImages([machine]).snapshot(machine, options, never);
}

async function writeTo(path: string, offset: number, bytes: Uint8Array): Promise<void> {
  await using file = await open(path, 'r+');
  await file.write(bytes, 0, bytes.length, offset);
}

async function attachLoopDevice(): Promise<LoopDevice> {
  const folder = await mkdtemp(join(tmpdir(), 'failkit-device-'));
  const image = join(folder, 'image.raw');
  await writeFile(image, randomBytes(capacityBytes));
  const remove = async () => {
    // Asked by image: one test detached it already, and somebody else may have that number by now.
    const { stdout } = await run('losetup', ['--noheadings', '--output', 'NAME', '--associated', image]);
    for (const path of stdout.split('\n').filter((line) => line !== '')) await run('losetup', ['-d', path.trim()]);
    await rm(folder, { recursive: true });
  };
  try {
    return { path: await attach(image), folder, [Symbol.asyncDispose]: remove };
  } catch (cause) {
    await rm(folder, { recursive: true });
    throw cause;
  }
}

/** Finding a free device and taking it are two steps, and another process may come between. */
async function attach(image: string, attempts = 5): Promise<string> {
  try {
    return (await run('losetup', ['--find', '--show', image])).stdout.trim();
  } catch (cause) {
    if (attempts === 1) throw cause;
    return attach(image, attempts - 1);
  }
}

async function mount(device: LoopDevice, mode: 'rw' | 'ro'): Promise<AsyncDisposable> {
  const point = join(device.folder, `mounted-${mode}`);
  await mkdir(point, { recursive: true });
  await run('mount', ['-o', mode, device.path, point]);
  return {
    [Symbol.asyncDispose]: async () => {
      await run('umount', [point]);
    },
  };
}

async function canAttachLoopDevice(): Promise<boolean> {
  try {
    const device = await attachLoopDevice();
    await device[Symbol.asyncDispose]();
    return true;
  } catch {
    return false;
  }
}
