/** nbdkit's real VDDK plugin with our stand-in for VMware's library: it proves what we do, and nothing about VMware's. */
import { type ChildProcess, fork } from 'node:child_process';
import { randomFillSync } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { SnapshotDisk, VsphereLogin } from '../../../hypervisors/vsphere/disk-reader.ts';
import { thumbprintOf } from '../../../hypervisors/vsphere/vddk/thumbprint.ts';
import { examineVddk } from '../../../hypervisors/vsphere/vddk/vddk-host.ts';
import { openVddkReader } from '../../../hypervisors/vsphere/vddk/vddk-reader.ts';
import type { VddkSettings } from '../../../hypervisors/vsphere/vddk/vddk-settings.ts';
import { canaries, recordOutput } from '../../canary.ts';
import { makeStandInVddk, type StandInSettings, type StandInVddk, vddkNeeds } from '../../peers/vddk.ts';
import type { HeldDisk } from './hold-vddk-reader.ts';

const needs = await vddkNeeds();
const never = new AbortController().signal;
const { password } = canaries();
const certificate = new TextEncoder().encode('any bytes have a hash');
const thumbprint = thumbprintOf(certificate, 'sha1');
const login: VsphereLogin = {
  ...{ host: 'vcenter.example', port: 443, user: 'agent@vsphere.local', certificate },
  password: { reveal: () => password },
};
/** Not a multiple of 64 KiB: older plugins fail at the end of such a disk. */
const capacityBytes = 4 * 1024 * 1024 + 98_816;
const disk: SnapshotDisk = {
  ...{ machineRef: 'vm-57', snapshotRef: 'snapshot-61', file: '[ds one] a folder/disk.vmdk', capacityBytes },
};

describe.skipIf(needs !== null)(needs ?? 'VDDK', () => {
  let root: string;
  let content: Uint8Array;
  let expected: StandInSettings;
  beforeAll(async () => {
    root = await mkdtemp(join(tmpdir(), 'failkit-points-'));
    content = new Uint8Array(capacityBytes);
    randomFillSync(content, 1024 * 1024, 2 * 1024 * 1024);
    randomFillSync(content, capacityBytes - 700);
    await mkdir(join(root, 'snapshot-61/a folder'), { recursive: true });
    await writeFile(join(root, 'snapshot-61/a folder/disk.vmdk'), content);
    expected = { root, user: login.user, password, thumbprint };
  });
  afterAll(() => rm(root, { recursive: true, force: true }));

  const settingsOf = ({ nbdkit, libdir }: StandInVddk): VddkSettings => ({
    ...{ nbdkit, libdir, transports: 'nbdssl', compression: 'fastlz', unbuffered: false, thumbprintHash: 'sha1' },
    configFile: null,
  });
  const open = (vddk: StandInVddk, changed: Partial<SnapshotDisk> = {}) =>
    openVddkReader(settingsOf(vddk), login, { ...disk, ...changed }, never);

  it('reads every byte of the snapshot, at any offset, and knows what is zero', async () => {
    await using vddk = await makeStandInVddk(expected);
    await using reader = await open(vddk);
    const read = new Uint8Array(capacityBytes);
    await reader.read(0, read, never);
    expect(Buffer.compare(read, content)).toBe(0);
    const odd = new Uint8Array(70_001);
    await reader.read(2_999_999, odd, never);
    expect(Buffer.compare(odd, content.subarray(2_999_999, 3_070_000))).toBe(0);
    let end = 0;
    let zeroBytes = 0;
    for await (const { offset, length, zero } of reader.extents(never)) {
      expect(offset).toBe(end);
      end += length;
      if (!zero) continue;
      zeroBytes += length;
      expect(content.subarray(offset, end).every((byte) => byte === 0)).toBe(true);
    }
    expect([end, zeroBytes > 1024 * 1024]).toEqual([capacityBytes, true]);
    expect(vddk.calls()).toContain(
      `connect server=vcenter.example port=443 vm=moref=vm-57 user=${login.user} thumbprint=${thumbprint} ` +
        'snapshot=snapshot-61 read-only=1 transports=nbdssl',
    );
  });

  it('shows the password to nobody, and leaves nothing behind', async () => {
    await using vddk = await makeStandInVddk(expected);
    const reader = await open(vddk);
    const serving = processesWith(disk.file);
    expect(serving).toHaveLength(1);
    for (const pid of serving)
      for (const file of ['cmdline', 'environ'])
        expect(readFileSync(`/proc/${pid}/${file}`, 'utf8').includes(password)).toBe(false);
    await reader[Symbol.asyncDispose]();
    expect(processesWith(disk.file)).toEqual([]);
    expect(openFilesBelow(root)).toEqual([]);
  });

  it('goes on when nbdkit is killed in the middle, and when a host fails a read', async () => {
    const marker = join(root, 'failed');
    const hurt = { 'read-latency-us': 2_000, 'fail-read': 30, 'fail-once': marker };
    await using vddk = await makeStandInVddk({ ...expected, ...hurt });
    await using reader = await open(vddk);
    const read = new Uint8Array(capacityBytes);
    const pieces = Array.from({ length: Math.ceil(capacityBytes / 65_536) }, (_, piece) =>
      reader.read(piece * 65_536, read.subarray(piece * 65_536, (piece + 1) * 65_536), never),
    );
    const all = Promise.all(pieces);
    while (!existsSync(marker)) await sleep(5);
    while (processesWith(disk.file).length === 0) await sleep(5);
    for (const pid of processesWith(disk.file)) process.kill(pid, 'SIGKILL');
    await all;
    expect(Buffer.compare(read, content)).toBe(0);
    expect(vddk.calls().filter((call) => call.startsWith('open')).length).toBeGreaterThan(1);
  });

  it('says so when reads fail again and again', async () => {
    await using vddk = await makeStandInVddk({ ...expected, 'fail-read': 1 });
    await using reader = await open(vddk);
    await expect(reader.read(0, new Uint8Array(512), never)).rejects.toMatchObject({ code: 'VDDK_FAILED' });
  });

  it.for([
    ['a wrong password', { password: 'another' }, {}, 'VDDK_LOGIN_REFUSED'],
    ['another thumbprint', { thumbprint: 'AA:BB' }, {}, 'VDDK_THUMBPRINT_REFUSED'],
    ['a host that does not answer', { reachable: 'no' }, {}, 'VDDK_HOST_UNREACHABLE'],
    ['a snapshot that is gone', {}, { snapshotRef: 'snapshot-9' }, 'VDDK_FAILED'],
    ['another size than the snapshot says', {}, { capacityBytes: 512 }, 'VDDK_FAILED'],
  ] as const)('names the cause: %s', async ([, wrong, changed, code]) => {
    await using vddk = await makeStandInVddk({ ...expected, ...wrong });
    const error: unknown = await open(vddk, changed).catch((caught: unknown) => caught);
    expect(error).toMatchObject({ code });
    recordOutput(String(error instanceof Error ? error.message : error));
    expect(processesWith(disk.file)).toEqual([]);
  });

  it('says so where nbdkit is not there', async () => {
    await using vddk = await makeStandInVddk(expected);
    const missing = openVddkReader({ ...settingsOf(vddk), nbdkit: '/nonexistent/nbdkit' }, login, disk, never);
    await expect(missing).rejects.toThrow(/nbdkit is gone \(it is not installed\)/);
  });

  it('finds out what this host lacks before any disk is opened', async () => {
    await using vddk = await makeStandInVddk(expected);
    const settings = settingsOf(vddk);
    expect(await examineVddk(settings, never)).toMatchObject({
      tellsAllocated: true,
      transports: ['file', 'nbdssl', 'nbd'],
    });
    const code = (changed: Partial<VddkSettings>) =>
      examineVddk({ ...settings, ...changed }, never).then(
        () => 'fine',
        (error: { readonly code: string }) => error.code,
      );
    expect(await code({ nbdkit: '/nonexistent/nbdkit' })).toBe('NBDKIT_MISSING');
    expect(await code({ nbdkit: '/bin/false' })).toBe('NBDKIT_MISSING');
    expect(await code({ libdir: '/nonexistent' })).toBe('VDDK_MISSING');
    expect(await code({ transports: 'hotadd:san' })).toBe('VDDK_TRANSPORT_MISSING');
    await using newer = await makeStandInVddk(expected, { soname: 'libvixDiskLib.so.9' });
    expect(await code({ libdir: newer.libdir })).toBe('VDDK_UNSUITABLE');
    await using broken = await makeStandInVddk(expected, { soname: 'elsewhere' });
    await writeFile(join(broken.libdir, 'lib64/libvixDiskLib.so.8'), 'no library');
    expect(await code({ libdir: broken.libdir })).toBe('VDDK_UNSUITABLE');
  });

  it('ends with the process that started it, even when that is killed', async () => {
    await using vddk = await makeStandInVddk(expected);
    const child: ChildProcess = fork(join(import.meta.dirname, 'hold-vddk-reader.ts'), { stdio: 'pipe' });
    const { host, port, user } = login;
    const held: HeldDisk = {
      ...{ settings: settingsOf(vddk), disk, login: { host, port, user }, password, certificate: [...certificate] },
    };
    child.send(held);
    await once(child, 'message');
    expect(processesWith(disk.file)).toHaveLength(1);
    child.kill('SIGKILL');
    await once(child, 'exit');
    for (let attempt = 0; attempt < 100 && processesWith(disk.file).length > 0; attempt++) await sleep(50);
    expect(processesWith(disk.file)).toEqual([]);
  });
});

/** nbdkits that serve that disk. */
function processesWith(file: string): readonly number[] {
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .filter((pid) => commandLine(pid).includes(`file=${file}`))
    .map(Number);
}

function commandLine(pid: string): readonly string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
  } catch {
    return []; // It ended meanwhile.
  }
}

function openFilesBelow(folder: string): readonly string[] {
  const pids = readdirSync('/proc').filter((entry) => /^\d+$/.test(entry));
  return pids.flatMap((pid) => {
    try {
      return readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
        const target = readlinkSync(`/proc/${pid}/fd/${fd}`);
        return target.startsWith(`${folder}/`) ? [target] : [];
      });
    } catch {
      return [];
    }
  });
}
