/** Recovery points of the test guest for drills: one that works, and others that were damaged in one way each. */
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { chmod, copyFile, mkdtemp, open, readdir, readFile, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { type Outcome, runFailkit, startFailkit } from '../end-to-end/failkit-process.ts';
import { guestNeeds } from '../peers/guest.ts';
import { peerFolder } from '../peers/server-process.ts';

const mebibyte = 2 ** 20;
/** Of guest.raw: FAT with the kernel from 1 MiB, the root file system from 25 MiB. */
const rootAt = 25 * mebibyte;
const debugfs = '/usr/sbin/debugfs';

export async function drillNeeds(): Promise<string | null> {
  return (await guestNeeds()) ?? (existsSync(debugfs) ? null : 'needs e2fsprogs');
}

/** What was done to the disk of each machine. */
const damages = {
  good: async () => undefined,
  /** The whole Debian with systemd. */
  debian: async () => undefined,
  second: async () => undefined,
  'no-boot-sector': (disk: string) => overwrite(disk, 0, Buffer.alloc(512)),
  'no-root': (disk: string) => overwrite(disk, rootAt, Buffer.alloc(20 * mebibyte)),
  'garbage-kernel': (disk: string) => overwrite(disk, 3 * mebibyte, randomBytes(8 * mebibyte)),
  panics: (disk: string) => replaceInit(disk, '#!/bin/sh\nexit 0\n'),
  hangs: (disk: string) => replaceInit(disk, '#!/bin/sh\nwhile :; do sleep 1; done\n'),
  // No boot code, and the partition with the boot loader says that it is for UEFI.
  uefi: async (disk: string) => {
    await overwrite(disk, 0, Buffer.alloc(440));
    await overwrite(disk, 446, Buffer.of(0));
    await overwrite(disk, 450, Buffer.of(0xef));
  },
} satisfies Record<string, (disk: string) => Promise<void>>;

export type DrilledMachine = keyof typeof damages;

export interface DrillSite extends AsyncDisposable {
  readonly folder: string;
  failkit(...args: string[]): Promise<Outcome>;
  start(...args: string[]): ReturnType<typeof startFailkit>;
  /** Flips bits in most records of its first segment, which has the beginning of the disk. */
  damage(machine: DrilledMachine): Promise<void>;
}

/** A folder with a configuration, a bucket and a point of each machine. */
export async function openDrillSite(machines: readonly DrilledMachine[]): Promise<DrillSite> {
  const folder = await mkdtemp(join(tmpdir(), 'failkit-drills-'));
  const site: DrillSite = {
    folder,
    failkit: (...args) => runFailkit(args, { folder }),
    start: (...args) => startFailkit(args, { folder }),
    damage: async (machine) => {
      const verified = await runFailkit(['verify', '--level', 'present', machine, '--json'], { folder });
      const [found] = verified.json<{ machines: { machineId: string }[] }>().machines;
      await damageSegment(
        join(folder, 'bucket/machines', found?.machineId ?? '', 'segments', '0000000000000001', '0000000001'),
      );
    },
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }),
  };
  const longAgo = new Date(Date.now() - 3_600_000);
  for (const machine of machines) {
    const disk = join(folder, `${machine}.raw`);
    await copyFile(machine === 'debian' ? debianImage() : join(peerFolder('guest'), 'guest.raw'), disk);
    await damages[machine](disk);
    await utimes(disk, longAgo, longAgo);
  }
  const entries = machines.map(
    (name) => `  - { name: ${name}, source: { type: image, disks: [{ label: root, path: ${name}.raw }] } }\n`,
  );
  const head =
    'repository: { target: filesystem, directory: bucket }\nkeys: { provider: local-key, file: local.key }\n';
  await writeFile(join(folder, 'failkit.yaml'), `${head}state: state\nmachines:\n${entries.join('')}`);
  for (const args of [['init', '--kit', 'kit'], ['seed']]) {
    const { exitCode, stderr } = await site.failkit(...args);
    if (exitCode !== 0) throw new Error(`failkit ${args.join(' ')}: ${stderr}`);
  }
  return site;
}

function debianImage(): string {
  return join(peerFolder('debian-guest'), 'debian.raw');
}

async function overwrite(path: string, offset: number, bytes: Uint8Array): Promise<void> {
  const file = await open(path, 'r+');
  await file.write(bytes, 0, bytes.length, offset);
  await file.close();
}

async function damageSegment(path: string): Promise<void> {
  const bytes = await readFile(path);
  for (let at = 1000; at < bytes.length - 100_000; at += 65_536) bytes[at] = (bytes[at] ?? 0) ^ 1;
  await chmod(path, 0o600);
  await writeFile(path, bytes);
}

async function replaceInit(disk: string, script: string): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'failkit-init-'));
  await writeFile(join(folder, 'init'), script, { mode: 0o755 });
  await writeFile(join(folder, 'commands'), `rm /sbin/init\nwrite ${join(folder, 'init')} /sbin/init\n`);
  await promisify(execFile)(debugfs, ['-w', '-f', join(folder, 'commands'), `${disk}?offset=${rootAt}`]);
  await rm(folder, { recursive: true });
}

/** Command lines of all processes that name `text`. */
export async function processesNaming(text: string): Promise<readonly string[]> {
  const lines: string[] = [];
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name) && name !== `${process.pid}`)) {
    // It may have ended meanwhile.
    const line = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
    if (line.includes(text)) lines.push(line.replaceAll('\0', ' '));
  }
  return lines;
}
