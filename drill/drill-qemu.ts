import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { QmpUnreachable } from '../hypervisors/kvm/kvm-errors.ts';
import { QmpClient } from '../hypervisors/kvm/qmp-client.ts';
import { Console } from './console.ts';
import { DrillHostUnfit } from './drill-errors.ts';
import { type QemuPlan, qemuArguments } from './qemu-arguments.ts';

/** One QEMU process of a drill, its consoles and its monitor. */

const qemu = 'qemu-system-x86_64';
const startTimeoutMs = 30_000;
const pollMs = 20;
const complaintCharsMax = 600;

export class DrillQemu implements AsyncDisposable {
  readonly pid: number;
  readonly serial: Console;
  readonly firmware: Console;
  readonly agentSocket: string;
  readonly qmp: QmpClient;
  /** Resolves when the process is gone. */
  readonly ended: Promise<void>;
  readonly #process: ChildProcess;

  private constructor(
    started: ChildProcess,
    parts: Pick<DrillQemu, 'serial' | 'firmware' | 'agentSocket' | 'qmp' | 'ended'>,
  ) {
    this.#process = started;
    this.pid = started.pid ?? -1;
    this.serial = parts.serial;
    this.firmware = parts.firmware;
    this.agentSocket = parts.agentSocket;
    this.qmp = parts.qmp;
    this.ended = parts.ended;
  }

  /** The machine is there, and paused. Throws DrillHostUnfit. */
  static async start(
    plan: Omit<QemuPlan, 'sockets'> & { readonly networkSocket: string | null },
    { folder, evidence }: { readonly folder: string; readonly evidence: string },
    signal: AbortSignal,
  ): Promise<DrillQemu> {
    await using opening = new AsyncDisposableStack();
    const at = (name: string): string => join(folder, name);
    const serial = opening.use(await Console.listen(at('serial'), join(evidence, 'serial.log')));
    const firmware = opening.use(await Console.listen(at('firmware'), join(evidence, 'firmware.log')));
    const sockets = { serial: at('serial'), firmware: at('firmware'), qmp: at('qmp'), agent: at('agent') };
    const log = opening.use(await open(join(evidence, 'qemu.log'), 'w+', 0o600));
    const args = qemuArguments({ ...plan, sockets: { ...sockets, network: plan.networkSocket } });
    const started = await launch(args, log);
    const ended = new Promise<void>((resolve) => {
      started.once('error', () => resolve());
      started.once('exit', () => resolve());
    });
    opening.defer(() => kill(started, ended));
    const qmp = opening.use(await connectWhenReady(sockets.qmp, started, log, signal));
    const held = opening.move();
    const machine = new DrillQemu(started, { serial, firmware, agentSocket: sockets.agent, qmp, ended });
    machine.#close = () => held.disposeAsync();
    return machine;
  }

  /** Nothing that the machine still has in mind is worth a clean end: its disks are thrown away. */
  async stop(): Promise<void> {
    await kill(this.#process, this.ended);
  }

  #close: () => Promise<void> = () => this.stop();

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#close();
  }
}

/** `7.2.22 (Debian …)`. Throws DrillHostUnfit. */
export async function qemuVersion(signal: AbortSignal): Promise<string> {
  try {
    const { stdout } = await promisify(execFile)(qemu, ['--version'], { signal, timeout: startTimeoutMs });
    return /version (.+)/.exec(stdout)?.[1]?.trim() ?? 'unknown';
  } catch (cause) {
    signal.throwIfAborted();
    const code = cause instanceof Error && 'code' in cause ? String(cause.code) : String(cause);
    throw new DrillHostUnfit(
      code === 'ENOENT' ? `${qemu} is not installed here` : `${qemu} can't be run here (${code})`,
      { cause },
    );
  }
}

/** With `setpriv` (util-linux) the kernel ends it when this process dies, however that happens. */
async function launch(args: readonly string[], log: FileHandle): Promise<ChildProcess> {
  const stdio = ['ignore', log.fd, log.fd] as const;
  const bound = spawn('setpriv', ['--pdeathsig', 'KILL', qemu, ...args], { stdio: [...stdio] });
  const missing = await Promise.race([
    once(bound, 'spawn').then(() => false),
    once(bound, 'error').then(() => true),
  ]).catch(() => true);
  return missing ? spawn(qemu, [...args], { stdio: [...stdio] }) : bound;
}

async function connectWhenReady(
  socket: string,
  started: ChildProcess,
  log: FileHandle,
  signal: AbortSignal,
): Promise<QmpClient> {
  const until = performance.now() + startTimeoutMs;
  for (;;) {
    try {
      return await QmpClient.open(socket, signal);
    } catch (error) {
      signal.throwIfAborted();
      const isOver = started.exitCode !== null || started.signalCode !== null || started.pid === undefined;
      if (isOver || !(error instanceof QmpUnreachable) || performance.now() > until)
        throw new DrillHostUnfit(`${qemu} did not start: ${await complaint(log)}`, { cause: error });
    }
    await sleep(pollMs, undefined, { signal });
  }
}

async function complaint(log: FileHandle): Promise<string> {
  const { bytesRead, buffer } = await log.read(Buffer.alloc(complaintCharsMax), 0, complaintCharsMax, 0);
  return buffer.toString('utf8', 0, bytesRead).trim() || 'it says nothing';
}

async function kill(process: ChildProcess, ended: Promise<void>): Promise<void> {
  process.kill('SIGKILL');
  await ended;
}
