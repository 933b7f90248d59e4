/** A QEMU that stands still: its disks are written through its own monitor, as a guest would. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connectKvm } from '../../../hypervisors/kvm/kvm-connection.ts';
import type { KvmMachine } from '../../../hypervisors/kvm/kvm-machine.ts';
import { QmpClient } from '../../../hypervisors/kvm/qmp-client.ts';
import type { HypervisorLab } from '../../contract/hypervisor.ts';
import { noise } from '../../faults/fault-world.ts';
import { bootGuest, type Guest, type GuestDisk, qemuImg } from '../../peers/guest.ts';

const never = new AbortController().signal;

export interface QemuLab extends HypervisorLab {
  readonly folder: string;
  readonly machine: KvmMachine;
  /** Another monitor than the one that the agent uses. */
  readonly monitor: QmpClient;
  /** Its QEMU ends in order, and is started anew on the same disks. */
  restart(): Promise<void>;
  /** Its QEMU is killed, and started anew. */
  crash(): Promise<void>;
}

export interface LabOptions {
  readonly iothread?: boolean;
  readonly uefi?: boolean;
  /** Of the qcow2 disk, as qemu-img has it. */
  readonly capacity?: string;
  /** Is done to that disk before QEMU is started. */
  prepare?(path: string): Promise<void>;
}

/** Two disks, `devdisk0` in qcow2 and `devdisk1` raw. */
export async function openQemuLab({
  iothread = false,
  uefi = false,
  capacity = '3M',
  prepare,
}: LabOptions = {}): Promise<QemuLab> {
  const folder = await mkdtemp(join(tmpdir(), 'failkit-qemu-'));
  const disks = await makeDisks(folder, iothread, capacity);
  await prepare?.(join(folder, 'a.qcow2'));
  const qmpSocket = join(folder, 'qmp');
  const boot = async (): Promise<{ guest: Guest; monitor: QmpClient }> => {
    const guest = await bootGuest({ disks, qmpSocket, uefi, extraArgs: ['-S'] });
    return { guest, monitor: await QmpClient.open(guest.testQmpSocket, never) };
  };
  let running = await boot();
  const machine: KvmMachine = {
    name: 'still',
    control: { kind: 'qmp', socket: qmpSocket, guestAgentSocket: null },
    scratchFolder: join(folder, 'scratch'),
    scratchFreeBytesMin: 1024 * 1024,
    excludedDisks: [],
    attachments: [],
    tag: '0123abcd',
  };
  const write = async (label: string, offset: number, bytes: Uint8Array): Promise<void> => {
    const pattern = join(folder, 'pattern');
    await writeFile(pattern, bytes);
    await io(running.monitor, label, `write -s ${pattern} ${offset} ${bytes.length}`);
  };
  await write('devdisk0', 0, noise('8', 256 * 1024));
  await write('devdisk0', 2 * 1024 * 1024 + 512, noise('9', 100 * 1024));
  const again = async (end: () => Promise<void>): Promise<void> => {
    await end();
    await running.monitor[Symbol.asyncDispose]();
    await running.guest[Symbol.asyncDispose]();
    running = await boot();
  };
  return {
    folder,
    machine,
    connection: connectKvm([machine]),
    machineName: machine.name,
    get monitor() {
      return running.monitor;
    },
    async content() {
      const contents = new Map<string, Uint8Array>();
      for (const [i, { path, format }] of disks.entries()) {
        await io(running.monitor, `devdisk${i}`, 'flush');
        const copy = join(folder, 'copy.raw');
        await qemuImg(['convert', '-U', '-f', format, '-O', 'raw', path, copy]);
        contents.set(`devdisk${i}`, new Uint8Array(await readFile(copy)));
      }
      return contents;
    },
    write,
    restart: () =>
      again(async () => {
        await running.monitor.run('quit', {}, never);
        await running.guest.ended;
      }),
    crash: () => again(() => running.guest.kill()),
    async [Symbol.asyncDispose]() {
      await running.monitor[Symbol.asyncDispose]();
      await running.guest[Symbol.asyncDispose]();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

async function makeDisks(folder: string, iothread: boolean, capacity: string): Promise<readonly GuestDisk[]> {
  const [qcow2, raw] = [join(folder, 'a.qcow2'), join(folder, 'b.raw')];
  await qemuImg(['create', '-q', '-f', 'qcow2', qcow2, capacity]);
  await writeFile(raw, noise('7', 1024 * 1024 + 512));
  return [
    { path: qcow2, format: 'qcow2', iothread },
    { path: raw, format: 'raw', iothread },
  ];
}

/** Through the device, and so through whatever a snapshot put below it. */
async function io(monitor: QmpClient, label: string, command: string): Promise<void> {
  const line = `qemu-io -d /machine/peripheral/${label}/virtio-backend "${command}"`;
  const said = await monitor.run('human-monitor-command', { 'command-line': line }, never);
  if (/fail|error|invalid/i.test(String(said))) throw new Error(`${line}: ${said}`);
}
