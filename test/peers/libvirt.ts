/** A real libvirtd on this host, without systemd: its configuration, state and processes are its own, so several run at once. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, openSync, readdirSync, readFileSync } from 'node:fs';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { guestNeeds } from './guest.ts';
import { type Ready, SerialShell, type ShellAnswer } from './serial-shell.ts';
import { freePort, peerFolder, peerNeeds } from './server-process.ts';

const startTimeoutMs = 60_000;
const readyTimeoutMs = 180_000;
const agentTimeoutMs = 60_000;
const logTailChars = 2_000;

/** What is missing, or null. */
export async function libvirtNeeds(): Promise<string | null> {
  const guest = await guestNeeds();
  if (guest !== null) return guest;
  if (process.getuid?.() !== 0) return 'needs libvirt (its tests give it namespaces of its own, which takes root)';
  let needs = await peerNeeds('libvirt');
  if (needs === null && !existsSync(tool('libvirtd'))) {
    // The packages are gone from the system since: install them again.
    await rm(peerFolder('libvirt'), { recursive: true });
    needs = await peerNeeds('libvirt');
  }
  return needs;
}

export interface LibvirtPeer extends AsyncDisposable {
  /** For `virsh --connect`. */
  readonly uri: string;
  /** The same through ssh; null unless asked for. */
  readonly sshUri: string | null;
  /** QEMU may look for images here; removed with the peer. */
  readonly folder: string;
  /** Runs virsh to its end and returns what it printed; rejects when it fails. */
  virsh(...args: readonly string[]): Promise<string>;
  /** Kills libvirtd and all its machines. */
  stop(): Promise<void>;
}

/** What is missing to reach it through ssh, or null. */
export async function sshNeeds(): Promise<string | null> {
  return (await libvirtNeeds()) ?? (await peerNeeds('sshd'));
}

/** `ssh`: reachable as another host would be, too. */
export async function startLibvirt({ ssh = false }: { readonly ssh?: boolean } = {}): Promise<LibvirtPeer> {
  const folder = await mkdtemp(join(tmpdir(), 'failkit-libvirt-'));
  await chmod(folder, 0o755);
  const log = openSync(join(folder, 'start.log'), 'w');
  const sshUri = ssh ? await prepareSsh(folder) : null;
  const alone = ['--mount', '--pid', '--fork', '--kill-child', '--mount-proc'];
  const starter = join(import.meta.dirname, 'recipes/libvirt/start.sh');
  const sshd = ssh ? [join(peerFolder('sshd'), 'root')] : [];
  // It dies with the test process, even when that is killed: the kernel sees to it.
  const server = spawn('setpriv', ['--pdeathsig', 'KILL', 'unshare', ...alone, starter, folder, ...sshd], {
    stdio: ['ignore', log, log],
  });
  const uri = `qemu+unix:///system?socket=${join(folder, 'run/libvirt-sock')}`;
  const virsh = async (...args: readonly string[]): Promise<string> =>
    (await promisify(execFile)(tool('virsh'), ['--quiet', '--connect', uri, ...args])).stdout;
  const stop = async () => {
    await kill(server);
    await rm(folder, { recursive: true, force: true, maxRetries: 5 });
  };
  try {
    await answering(server, virsh, folder);
  } catch (error) {
    await stop();
    throw error;
  }
  return { uri, sshUri, folder, virsh, stop, [Symbol.asyncDispose]: stop };
}

/** Keys of this server and its one client, and an ssh that knows only this server. */
async function prepareSsh(folder: string): Promise<string> {
  const port = await freePort();
  const at = (name: string): string => join(folder, name);
  for (const key of ['host-key', 'user-key'])
    await promisify(execFile)('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', at(key)]);
  const settings = [
    ...[`Port ${port}`, 'ListenAddress 127.0.0.1', `HostKey ${at('host-key')}`, 'PidFile none', 'UsePAM no'],
    ...[`AuthorizedKeysFile ${at('user-key.pub')}`, 'StrictModes no', 'PermitRootLogin prohibit-password'],
  ];
  await writeFile(at('sshd_config'), `${settings.join('\n')}\n`);
  const client = `exec ssh -o UserKnownHostsFile=${at('known-hosts')} -o StrictHostKeyChecking=accept-new "$@"`;
  await writeFile(at('ssh'), `#!/bin/sh\n${client}\n`, { mode: 0o755 });
  return `qemu+ssh://root@127.0.0.1:${port}/system?command=${at('ssh')}&keyfile=${at('user-key')}`;
}

export interface DomainDisk {
  /** Its target: vda, vdb, … */
  readonly label: string;
  readonly path: string;
  readonly format: 'raw' | 'qcow2';
  readonly iothread?: boolean;
  /** Further elements of the disk, as `<readonly/>`. */
  readonly xml?: string;
}

export interface DomainOptions {
  readonly name: string;
  /** The first is the boot disk. */
  readonly disks: readonly DomainDisk[];
  /** Further devices. */
  readonly devices?: string;
}

/** A domain with the guest of guest.ts inside. */
export interface LibvirtGuest {
  readonly name: string;
  /** Of its QEMU, while it runs. */
  pid(): number;
  /** Resolves when it takes commands and its agent is connected. */
  ready(): Promise<Ready>;
  run(shellLine: string, timeoutMs?: number): Promise<ShellAnswer>;
  /** As a power cut: libvirt notices that QEMU is gone. */
  killQemu(): Promise<void>;
  /** Starts it again after it ended. */
  start(): Promise<void>;
}

export async function defineDomain(peer: LibvirtPeer, options: DomainOptions): Promise<LibvirtGuest> {
  const { name } = options;
  const serial = join(peer.folder, `${name}.serial`);
  const file = join(peer.folder, `${name}.xml`);
  await writeFile(file, domainXml(options, serial));
  await peer.virsh('define', file);
  let shell: SerialShell | null = null;
  const inside = (): SerialShell => {
    if (shell === null) throw new Error(`domain ${name} was not started`);
    return shell;
  };
  return {
    name,
    pid: () => qemuPid(name, peer.folder),
    async start() {
      shell?.[Symbol.dispose]();
      await peer.virsh('start', name);
      shell = await SerialShell.connect(serial);
    },
    async ready() {
      const ready = await inside().ready(readyTimeoutMs);
      await agentConnected(peer, name);
      return ready;
    },
    run: (line, timeoutMs) => inside().run(line, timeoutMs),
    async killQemu() {
      process.kill(qemuPid(name, peer.folder), 'SIGKILL');
      while ((await peer.virsh('domstate', name)).trim() !== 'shut off') await sleep(50);
    },
  };
}

function domainXml({ name, disks, devices = '' }: DomainOptions, serial: string): string {
  const disk = ({ label, path, format, iothread, xml = '' }: DomainDisk): string =>
    `<disk type='file' device='disk'><driver name='qemu' type='${format}' discard='unmap'${iothread ? " iothread='1'" : ''}/>
      <source file='${path}'/><target dev='${label}' bus='virtio'/>${xml}</disk>`;
  return `<domain type='qemu'><name>${name}</name><memory unit='MiB'>256</memory><vcpu>1</vcpu><iothreads>1</iothreads>
    <os><type arch='x86_64'>hvm</type><boot dev='hd'/></os><features><acpi/></features><on_reboot>destroy</on_reboot>
    <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>${disks.map(disk).join('')}
      <controller type='usb' model='none'/><memballoon model='none'/>
      <serial type='unix'><source mode='bind' path='${serial}'/><target port='0'/></serial>
      <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>${devices}
    </devices></domain>`;
}

/** Runs a line of shell in a guest that has no serial port for us, by its agent. */
export async function runByAgent(peer: LibvirtPeer, name: string, line: string): Promise<string> {
  await agentConnected(peer, name);
  const ask = async (execute: string, args: object) =>
    JSON.parse(await peer.virsh('qemu-agent-command', name, JSON.stringify({ execute, arguments: args }))).return;
  const { pid } = await ask('guest-exec', { path: '/bin/sh', arg: ['-c', line], 'capture-output': true });
  for (;;) {
    const status = await ask('guest-exec-status', { pid });
    if (status.exited)
      return Buffer.from(status['out-data'] ?? '', 'base64')
        .toString()
        .trim();
    await sleep(100);
  }
}

async function agentConnected(peer: LibvirtPeer, name: string): Promise<void> {
  const until = performance.now() + agentTimeoutMs;
  while (!/org\.qemu\.guest_agent\.0' state='connected'/.test(await peer.virsh('dumpxml', name))) {
    if (performance.now() > until) throw new Error(`the agent of domain ${name} is not connected`);
    await sleep(100);
  }
}

/** As this host numbers it, not libvirtd. */
/** Another rig beside this one has a domain of the same name: the folder of its disks tells them apart. */
function qemuPid(name: string, folder: string): number {
  const pid = readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .find((entry) => {
      try {
        const command = readFileSync(`/proc/${entry}/cmdline`, 'utf8');
        return command.split('\0').includes(`guest=${name},debug-threads=on`) && command.includes(`${folder}/`);
      } catch {
        return false;
      }
    });
  if (pid === undefined) throw new Error(`no QEMU runs domain ${name}`);
  return Number(pid);
}

function tool(name: 'libvirtd' | 'virsh'): string {
  return join(peerFolder('libvirt'), name);
}

async function answering(
  server: ChildProcess,
  virsh: (...args: readonly string[]) => Promise<string>,
  folder: string,
): Promise<void> {
  const until = performance.now() + startTimeoutMs;
  for (;;) {
    const answers = await virsh('hostname').then(
      () => true,
      () => false,
    );
    if (answers) return;
    if (server.exitCode !== null || performance.now() > until) {
      const logs = ['start.log', 'libvirtd.log'].map((name) => join(folder, name)).filter(existsSync);
      throw new Error(`libvirtd did not start:\n${logs.map((log) => readFileSync(log, 'utf8').slice(-logTailChars))}`);
    }
    await sleep(50);
  }
}

async function kill(server: ChildProcess): Promise<void> {
  if (server.exitCode !== null || server.signalCode !== null) return;
  const ended = once(server, 'exit');
  server.kill('SIGKILL');
  await ended;
}
