/** Disks that end: a small file system to fill up, and a block device whose storage goes away. Both need root. */
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, open, rm, truncate } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

export interface SmallDisk extends AsyncDisposable {
  readonly folder: string;
  /** Leaves not a byte. */
  fill(): Promise<void>;
}

export async function mountSmallDisk(mebibytes: number): Promise<SmallDisk> {
  const folder = await mkdtemp(join(tmpdir(), 'failkit-small-'));
  await run('mount', ['-t', 'tmpfs', '-o', `size=${mebibytes}m`, 'tmpfs', folder]);
  return {
    folder,
    fill: () => fill(join(folder, 'filler')),
    [Symbol.asyncDispose]: async () => {
      await run('umount', [folder]);
      await rm(folder, { recursive: true });
    },
  };
}

async function fill(path: string): Promise<void> {
  await using file = await open(path, 'w');
  for (const chunkBytes of [65_536, 4_096, 512]) {
    try {
      for (;;) await file.write(Buffer.alloc(chunkBytes, 1));
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'ENOSPC')) throw error;
    }
  }
}

export interface FailingDisk extends AsyncDisposable {
  readonly device: string;
  /** From now on reads fail. */
  fail(): Promise<void>;
}

/** `backing` is the file behind the device. */
export async function attachFailingDisk(backing: string): Promise<FailingDisk> {
  const { stdout } = await run('losetup', ['--find', '--show', '--read-only', '--direct-io=on', backing]);
  const device = stdout.trim();
  return {
    device,
    fail: () => truncate(backing, 0),
    [Symbol.asyncDispose]: async () => {
      await run('losetup', ['-d', device]);
    },
  };
}

export async function mountNeeds(): Promise<string | null> {
  try {
    const disk = await mountSmallDisk(1);
    await disk[Symbol.asyncDispose]();
    return null;
  } catch {
    return 'needs a mountable tmpfs (root)';
  }
}

export async function loopNeeds(): Promise<string | null> {
  const folder = await mkdtemp(join(tmpdir(), 'failkit-loop-'));
  try {
    await mkdir(folder, { recursive: true });
    const backing = join(folder, 'backing');
    await using file = await open(backing, 'w');
    await file.truncate(1024 * 1024);
    const disk = await attachFailingDisk(backing);
    await disk[Symbol.asyncDispose]();
    return null;
  } catch {
    return 'needs loop devices (root, losetup)';
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
