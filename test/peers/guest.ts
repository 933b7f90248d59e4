/**
 * A real machine: QEMU with a small Debian guest that boots from its own disk, has a shell on the serial port, a guest
 * agent, and counts its boots. It runs on KVM where that really boots something, else on QEMU's own processor.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { accessSync, constants, existsSync, openSync, readFileSync } from 'node:fs';
import { copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { cpus, hostname, release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { connectWhenThere, type Ready, SerialShell, type ShellAnswer } from './serial-shell.ts';
import { peerFolder, peerNeeds } from './server-process.ts';

const readyTimeoutMs = 180_000;
const powerOffTimeoutMs = 60_000;
const kvmTimeoutMs = 15_000;
const endPauseMs = 1_000;
const errorsShownChars = 2_000;

export type DiskFormat = 'raw' | 'qcow2';

/** What is missing, or null. `debian-guest`: a whole Debian with systemd, instead of the small guest. */
export async function guestNeeds(kind: 'guest' | 'debian-guest' = 'guest'): Promise<string | null> {
  for (const peer of ['qemu', kind]) {
    let needs = await peerNeeds(peer);
    if (needs === null && peer === 'qemu' && !existsSync(qemuTool('qemu-system-x86_64'))) {
      // The packages are gone from the system since: install them again.
      await rm(peerFolder(peer), { recursive: true });
      needs = await peerNeeds(peer);
    }
    if (needs !== null) return needs;
  }
  return null;
}

/** A fresh copy of the guest's boot disk in `folder`; its free space at the end, if it is larger, is not used. */
export async function makeGuestDisk(
  folder: string,
  {
    format,
    sizeMiB,
    name = 'boot',
  }: { readonly format: DiskFormat; readonly sizeMiB?: number; readonly name?: string },
): Promise<string> {
  const path = join(folder, `${name}.${format}`);
  await qemuImg(['convert', '-q', '-f', 'raw', '-O', format, join(peerFolder('guest'), 'guest.raw'), path]);
  if (sizeMiB !== undefined) await qemuImg(['resize', '-q', '-f', format, path, `${sizeMiB}M`]);
  return path;
}

/** An empty disk; the guest sees the second one as /dev/vdb, and mounts it at /data/vdb at each boot once it has an ext4. */
export async function makeDataDisk(
  folder: string,
  { format, sizeMiB, name }: { readonly format: DiskFormat; readonly sizeMiB: number; readonly name: string },
): Promise<string> {
  const path = join(folder, `${name}.${format}`);
  await qemuImg(['create', '-q', '-f', format, path, `${sizeMiB}M`]);
  return path;
}

export async function qemuImg(args: readonly string[]): Promise<string> {
  return (await promisify(execFile)(qemuTool('qemu-img'), [...args])).stdout;
}

export function qemuTool(name: 'qemu-system-x86_64' | 'qemu-img'): string {
  return join(peerFolder('qemu'), name);
}

export interface GuestDisk {
  readonly path: string;
  readonly format: DiskFormat;
  /** Gives the disk a thread of its own, as many hypervisors do. */
  readonly iothread?: boolean;
  readonly readOnly?: boolean;
}

export interface GuestOptions {
  /**
   * The first is the boot disk. Node names are `disk0`, `disk1`, …, of the file below `file0`, …; the devices have the
   * same ids with `dev` in front, and the node name as serial number.
   */
  readonly disks: readonly GuestDisk[];
  readonly memoryMiB?: number;
  readonly smp?: number;
  readonly uefi?: boolean;
  /** Where the monitor for whoever is tested listens; by default in the guest's own folder. */
  readonly qmpSocket?: string;
  readonly extraArgs?: readonly string[];
}

export interface Guest extends AsyncDisposable {
  readonly pid: number;
  /** The monitor for whoever is tested. */
  readonly qmpSocket: string;
  /** Another monitor, for the test itself. */
  readonly testQmpSocket: string;
  /** The guest agent's channel: lines of JSON, one client at a time. */
  readonly agentSocket: string;
  /** Resolves when the guest takes commands. */
  ready(): Promise<Ready>;
  /** Runs one line of shell. Rejects when the guest is gone or silent. */
  run(shellLine: string, timeoutMs?: number): Promise<ShellAnswer>;
  serialLog(): string;
  /** Resolves when QEMU has ended by itself. */
  readonly ended: Promise<void>;
  /** As a power cut; QEMU closes no image in order. */
  kill(): Promise<void>;
  /** Lets the guest sync and switch itself off; QEMU closes its images. */
  powerOff(): Promise<void>;
}

/** Starts it and returns at once; `ready()` waits for the guest. Disposing kills it. */
export async function bootGuest(options: GuestOptions): Promise<Guest> {
  return await boot(options, await accelerator());
}

async function boot(options: GuestOptions, accel: 'kvm' | 'tcg'): Promise<Guest> {
  const folder = await mkdtemp(join(tmpdir(), 'failkit-guest-'));
  const at = (name: string) => join(folder, name);
  const qmpSocket = options.qmpSocket ?? at('qmp');
  const firmware = options.uefi ? await uefiFirmware(folder) : [];
  const args = [
    ...['-name', 'guest', '-accel', accel === 'kvm' ? 'kvm' : 'tcg,thread=multi', '-m', `${options.memoryMiB ?? 256}`],
    ...['-smp', `${options.smp ?? 1}`, '-display', 'none', '-nic', 'none', '-no-reboot', '-monitor', 'none'],
    ...firmware,
    ...options.disks.flatMap(diskArgs),
    ...['-chardev', `socket,id=serial,path=${at('serial')},server=on,wait=off`, '-serial', 'chardev:serial'],
    ...['-device', 'virtio-serial-pci', '-chardev', `socket,id=agent,path=${at('agent')},server=on,wait=off`],
    ...['-device', 'virtserialport,id=agent0,chardev=agent,name=org.qemu.guest_agent.0'],
    ...['-qmp', `unix:${qmpSocket},server=on,wait=off`, '-qmp', `unix:${at('test-qmp')},server=on,wait=off`],
    ...(options.extraArgs ?? []),
  ];
  const qemu = launch(args, at('errors'));
  const ended = once(qemu, 'exit').then(() => undefined);
  const kill = async () => {
    qemu.kill('SIGKILL');
    await ended;
  };
  const removed = async () => {
    await kill();
    await rm(folder, { recursive: true, force: true });
  };
  const refused = ended.then(() => {
    throw new Error(`QEMU did not start:\n${readFileSync(at('errors'), 'utf8').slice(-errorsShownChars)}`);
  });
  refused.catch(() => null);
  try {
    const shell = await Promise.race([SerialShell.connect(at('serial')), refused]);
    // It listens before it has opened its disks, but greets only afterwards.
    await Promise.race([greeted(at('test-qmp')), refused]);
    return {
      pid: qemu.pid ?? -1,
      qmpSocket,
      testQmpSocket: at('test-qmp'),
      agentSocket: at('agent'),
      ready: () => shell.ready(readyTimeoutMs),
      run: (shellLine, timeoutMs) => shell.run(shellLine, timeoutMs),
      serialLog: () => shell.log,
      ended,
      kill,
      powerOff: () => powerOff(shell, ended),
      [Symbol.asyncDispose]: async () => {
        shell[Symbol.dispose]();
        await removed();
      },
    };
  } catch (error) {
    // A QEMU that ends breaks its connections first.
    const why = await Promise.race([refused, sleep(endPauseMs, error)]).catch((refusal: unknown) => refusal);
    await removed();
    throw why;
  }
}

async function greeted(path: string): Promise<void> {
  const socket = await connectWhenThere(path);
  await once(socket, 'data');
  const closed = once(socket, 'close');
  socket.destroy();
  await closed;
}

async function powerOff(shell: SerialShell, ended: Promise<void>): Promise<void> {
  // It ends before it answers.
  await shell.run('sync; poweroff -f', powerOffTimeoutMs).catch(() => null);
  await ended;
}

function diskArgs({ path, format, iothread = false, readOnly = false }: GuestDisk, index: number): readonly string[] {
  const file = { driver: 'file', 'node-name': `file${index}`, filename: path };
  const node = { driver: format, 'node-name': `disk${index}`, 'read-only': readOnly, discard: 'unmap', file };
  const device = `virtio-blk-pci,id=devdisk${index},drive=disk${index},serial=disk${index}`;
  return [
    ...(iothread ? ['-object', `iothread,id=iothread${index}`] : []),
    ...['-blockdev', JSON.stringify(node)],
    ...['-device', iothread ? `${device},iothread=iothread${index}` : device],
  ];
}

async function uefiFirmware(folder: string): Promise<readonly string[]> {
  const variables = join(folder, 'uefi-variables.fd');
  await copyFile(join(peerFolder('qemu'), 'ovmf/OVMF_VARS_4M.fd'), variables);
  return [
    ...['-machine', 'q35'],
    ...['-drive', `if=pflash,format=raw,unit=0,readonly=on,file=${peerFolder('qemu')}/ovmf/OVMF_CODE_4M.fd`],
    ...['-drive', `if=pflash,format=raw,unit=1,file=${variables}`],
  ];
}

/** It dies with the test process, even when that is killed: the kernel sees to it. */
function launch(args: readonly string[], errors: string): ChildProcess {
  const log = openSync(errors, 'w');
  const command = ['--pdeathsig', 'KILL', qemuTool('qemu-system-x86_64'), ...args];
  return spawn('setpriv', command, { stdio: ['ignore', log, log] });
}

let chosen: Promise<'kvm' | 'tcg'> | null = null;

/**
 * That /dev/kvm opens proves nothing: on some machines it accepts a virtual machine and never gets through its boot. So
 * the guest is booted once on each kind of host, under a time limit, and the outcome is kept beside it.
 */
export function accelerator(): Promise<'kvm' | 'tcg'> {
  chosen ??= chooseAccelerator();
  return chosen;
}

async function chooseAccelerator(): Promise<'kvm' | 'tcg'> {
  if (!isAccessible('/dev/kvm')) return 'tcg';
  const host = createHash('sha256').update(`${hostname()} ${release()} ${cpus()[0]?.model}`).digest('hex');
  const kept = join(peerFolder('guest'), `accelerator-${host.slice(0, 12)}`);
  if (existsSync(kept)) return (await readFile(kept, 'utf8')) === 'kvm' ? 'kvm' : 'tcg';
  const accel = (await bootsOnKvm()) ? 'kvm' : 'tcg';
  await writeFile(kept, accel);
  return accel;
}

async function bootsOnKvm(): Promise<boolean> {
  const folder = await mkdtemp(join(tmpdir(), 'failkit-kvm-'));
  try {
    const path = await makeGuestDisk(folder, { format: 'qcow2' });
    await using guest = await boot({ disks: [{ path, format: 'qcow2' }] }, 'kvm');
    const late = AbortSignal.timeout(kvmTimeoutMs);
    const stuck = once(late, 'abort').then(() => Promise.reject(new Error('too slow')));
    await Promise.race([guest.ready(), stuck]);
    return true;
  } catch {
    return false;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function isAccessible(path: string): boolean {
  try {
    accessSync(path, constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}
