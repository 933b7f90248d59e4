import { createHash } from 'node:crypto';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { NbdRequestFailed } from '../hypervisors/nbd/nbd-errors.ts';
import { runQemuImg } from '../hypervisors/nbd/qemu-nbd.ts';
import { BootWatch } from './boot-watch.ts';
import type {
  BackingDisk,
  CheckResult,
  DrillFinding,
  DrillMachine,
  DrillOptions,
  Firmware,
  Phase,
  PhaseName,
} from './drill.ts';
import { DrillQemu } from './drill-qemu.ts';
import { firmwareOf, prepareUefi } from './firmware.ts';
import { guestFacts, runCheck } from './guest-checks.ts';

/** One machine of a drill: overlays on its disks, power on, watch it boot, look inside. It runs until it is stopped. */

const screenTimeoutMs = 10_000;

export interface BootTools {
  readonly options: DrillOptions;
  /** A folder of its own, gone after the drill. */
  readonly folder: string;
  readonly evidence: string;
  readonly networkSocket: string | null;
  /** Owns whatever is opened here; the machine runs until that is disposed of. */
  readonly stack: AsyncDisposableStack;
  readonly onProgress: (doing: string) => void;
}

/** What is known of a machine while it still runs. */
export interface BootedMachine {
  readonly qemu: DrillQemu;
  readonly disks: readonly BackingDisk[];
  readonly firmware: Firmware;
  readonly phases: readonly Phase[];
  readonly findings: readonly DrillFinding[];
  readonly checks: readonly CheckResult[];
  readonly guest: Readonly<Record<string, unknown>> | null;
}

/** Throws what its disks can't be opened for, and DrillHostUnfit; a machine that does not boot has findings. */
export async function bootMachine(
  machine: DrillMachine,
  tools: BootTools,
  signal: AbortSignal,
): Promise<BootedMachine> {
  const { options, folder, evidence, stack } = tools;
  await mkdir(folder, { recursive: true });
  await mkdir(evidence, { recursive: true, mode: 0o700 });
  const clock = new PhaseClock(machine.openMs);
  tools.onProgress('opening its disks');
  const disks: BackingDisk[] = [];
  for (const disk of machine.disks) disks.push(stack.use(await disk.open(folder, signal)));
  clock.ends('disks', performance.now());

  const firmware = await chooseFirmware(machine, disks, options, signal);
  const plan = {
    name: machine.name,
    options,
    firmware: firmware === 'uefi' ? await prepareUefi(machine.uefiVariables, folder) : null,
    overlays: await makeOverlays(disks, folder, signal),
    networkSocket: tools.networkSocket,
    macAddress: macAddressOf(machine.machineId),
  };
  const qemu = stack.use(await DrillQemu.start(plan, { folder, evidence }, signal));
  // QEMU has opened them: what the machine writes is gone with it, however this process ends.
  for (const path of [...plan.overlays, plan.firmware?.variables]) if (path !== undefined) await rm(path);
  using watch = new BootWatch(qemu, options.reach);
  const deadlineMs = performance.now() + options.timeoutMs;
  await qemu.qmp.run('cont', {}, signal);
  clock.ends('power', performance.now());
  const failure = await watched(watch, options.timeoutMs, tools.onProgress, signal);
  clock.endsAsSeen(watch.seen);

  const picture = await screenshot(qemu, join(evidence, 'screenshot.png'), signal);
  const inside = failure === null ? await lookInside(machine, qemu, tools, deadlineMs, signal) : null;
  if (inside !== null) clock.ends('checks', performance.now());
  return {
    qemu,
    disks,
    firmware,
    phases: clock.phases,
    findings: [failure, picture.finding, ...(inside?.findings ?? [])].filter((found) => found !== null),
    checks: [...milestones(watch, options, failure), picture.result, ...(inside?.checks ?? skipped(machine))],
    guest: inside?.guest ?? null,
  };
}

async function watched(
  watch: BootWatch,
  timeoutMs: number,
  onProgress: (doing: string) => void,
  signal: AbortSignal,
): Promise<DrillFinding | null> {
  const timer = setInterval(() => onProgress(watch.doing), 200);
  try {
    return await watch.wait(timeoutMs, signal);
  } finally {
    clearInterval(timer);
  }
}

async function chooseFirmware(
  machine: DrillMachine,
  disks: readonly BackingDisk[],
  { firmware }: DrillOptions,
  signal: AbortSignal,
): Promise<Firmware> {
  if (firmware !== 'auto') return firmware;
  if (machine.uefiVariables !== null) return 'uefi';
  const [first] = disks;
  try {
    return first === undefined ? 'bios' : await firmwareOf(first, machine.disks[0]?.capacityBytes ?? 0, signal);
  } catch (error) {
    // Damaged where it is needed most: the boot shows it, and the disk tells why.
    if (error instanceof NbdRequestFailed) return 'bios';
    throw error;
  }
}

async function makeOverlays(
  disks: readonly BackingDisk[],
  folder: string,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const overlays: string[] = [];
  for (const [index, { place }] of disks.entries()) {
    const overlay = join(folder, `overlay-${index}.qcow2`);
    await runQemuImg(['create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', place, overlay], signal);
    overlays.push(overlay);
  }
  return overlays;
}

/** The same for the same machine, in QEMU's own range. */
function macAddressOf(machineId: string): string {
  return `525400${createHash('sha256').update(machineId).digest('hex').slice(0, 6)}`;
}

/** What can be said of each milestone; a machine that went further passed those before, whether they showed or not. */
function milestones(watch: BootWatch, { reach }: DrillOptions, failure: DrillFinding | null): readonly CheckResult[] {
  const order = ['firmware', 'kernel', 'agent'] as const;
  const power: CheckResult = { check: 'power', outcome: 'passed', what: 'the machine was switched on' };
  const wanted = order.slice(0, order.indexOf(reach) + 1);
  return [
    power,
    ...wanted.map((check): CheckResult => {
      const passed = watch.seen.has(check);
      return { check, outcome: passed ? 'passed' : 'failed', what: passed ? saidBy[check] : (failure?.what ?? '') };
    }),
  ];
}

const saidBy = {
  firmware: 'the firmware started the boot loader',
  kernel: 'the kernel runs',
  agent: 'the guest agent answers',
} as const;

async function screenshot(
  qemu: DrillQemu,
  filename: string,
  signal: AbortSignal,
): Promise<{ readonly result: CheckResult; readonly finding: DrillFinding | null }> {
  const check = 'screenshot';
  try {
    await qemu.qmp.run('screendump', { filename, format: 'png' }, signal, screenTimeoutMs);
    return { result: { check, outcome: 'passed', what: 'screenshot.png' }, finding: null };
  } catch (error) {
    signal.throwIfAborted();
    const what = error instanceof Error ? error.message : String(error);
    return { result: { check, outcome: 'failed', what }, finding: { code: 'NO_SCREENSHOT', what } };
  }
}

async function lookInside(
  machine: DrillMachine,
  qemu: DrillQemu,
  { options, evidence, onProgress }: BootTools,
  deadlineMs: number,
  signal: AbortSignal,
): Promise<Pick<BootedMachine, 'findings' | 'checks' | 'guest'>> {
  const findings: DrillFinding[] = [];
  const checks: CheckResult[] = [];
  const guest = options.reach === 'agent' ? await guestFacts(qemu.agentSocket, signal) : null;
  for (const [index, check] of machine.checks.entries()) {
    onProgress(check.kind === 'port' ? `looking for port ${check.port}` : 'running a command in it');
    const { result, finding, output } = await runCheck(check, qemu.agentSocket, deadlineMs, signal);
    checks.push(result);
    if (finding !== null) findings.push(finding);
    if (output !== null) await writeFile(join(evidence, `command-${index + 1}.txt`), output, { mode: 0o600 });
  }
  return { findings, checks, guest };
}

function skipped({ checks }: DrillMachine): readonly CheckResult[] {
  return checks.map((check) => ({
    check: check.kind === 'port' ? `port ${check.port}` : `command ${check.command}`,
    outcome: 'skipped',
    what: 'the machine did not get so far',
  }));
}

/** Each phase begins where the one before it ended. */
class PhaseClock {
  readonly #phases: Phase[];
  #lastMs = performance.now();

  constructor(openMs: number) {
    this.#phases = [{ phase: 'open', tookMs: Math.round(openMs) }];
  }

  get phases(): readonly Phase[] {
    return this.#phases;
  }

  ends(phase: PhaseName, atMs: number): void {
    this.#phases.push({ phase, tookMs: Math.max(0, Math.round(atMs - this.#lastMs)) });
    this.#lastMs = Math.max(atMs, this.#lastMs);
  }

  endsAsSeen(seen: BootWatch['seen']): void {
    for (const phase of ['firmware', 'kernel', 'agent'] as const) {
      const atMs = seen.get(phase);
      if (atMs !== undefined) this.ends(phase, atMs);
    }
  }
}
