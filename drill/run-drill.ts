import { existsSync } from 'node:fs';
import { basename, join } from 'node:path';
import { QmpLost } from '../hypervisors/kvm/kvm-errors.ts';
import { type BootedMachine, bootMachine } from './boot-machine.ts';
import type { DrillFinding, DrillMachine, DrillOptions, DrillResult, MachineResult } from './drill.ts';
import { qemuVersion } from './drill-qemu.ts';
import { IsolatedNetwork } from './isolated-network.ts';
import { openWorkFolder } from './work-folder.ts';

/** boot each machine, in order → look inside → stop all → is the source untouched, is everything gone? */

/** Files of the evidence as a whole. */
const evidenceFiles = ['result.json', 'summary.txt', 'SHA256SUMS'];

export interface DrillTools {
  /** What the machine does now, for a person. */
  readonly onProgress: (machine: string, doing: string) => void;
  /** Why one machine's disks can't be had, in words, so that the others are drilled all the same; null: the drill is over. */
  readonly explain: (error: unknown) => string | null;
}

interface Drilled {
  readonly machine: DrillMachine;
  readonly evidence: string;
  readonly booted: BootedMachine | null;
  readonly findings: DrillFinding[];
}

/** Earlier machines go on running while later ones boot: these may need them. Throws DrillHostUnfit. */
export async function runDrill(
  machines: readonly DrillMachine[],
  options: DrillOptions,
  tools: DrillTools,
  signal: AbortSignal,
): Promise<DrillResult> {
  const startedAt = new Date();
  const startedMs = performance.now();
  const qemu = await qemuVersion(signal);
  const workFolder = await openWorkFolder(options.workFolder);
  const work = workFolder.path;
  const drilled: Drilled[] = [];
  let passedMs = startedMs;
  try {
    await using stack = new AsyncDisposableStack();
    const network =
      options.network === 'isolated' ? stack.use(await IsolatedNetwork.open(join(work, 'network'))) : null;
    const networkSocket = network?.socketPath ?? null;
    for (const [index, machine] of machines.entries()) {
      const evidence = join(options.evidenceFolder, evidenceName(machine, machines));
      const onProgress = (doing: string): void => tools.onProgress(machine.name, doing);
      const place = { options, folder: join(work, `${index}`), evidence, networkSocket, stack, onProgress };
      drilled.push(await drillOne(machine, place, tools, signal));
      passedMs = performance.now();
    }
    await stopAndLook(drilled, signal);
  } finally {
    await workFolder.remove();
  }
  const left = leftBehind(work, drilled);
  const results = drilled.map(resultOf);
  const passed = left.length === 0 && results.every(({ outcome }) => outcome === 'passed');
  return {
    outcome: passed ? 'passed' : 'failed',
    startedAt: startedAt.toISOString(),
    durationMs: Math.round(performance.now() - startedMs),
    rtoMs: results.every(({ rtoMs }) => rtoMs !== null) ? Math.round(passedMs - startedMs + openMsOf(machines)) : null,
    qemu,
    accelerator: options.accelerator,
    network: options.network,
    machines: results,
    findings: left,
    sourceUntouched: !results.some(({ findings }) => findings.some(({ code }) => code === 'SOURCE_WRITTEN')),
    cleanedUp: left.length === 0,
  };
}

async function drillOne(
  machine: DrillMachine,
  place: Parameters<typeof bootMachine>[1],
  { explain }: DrillTools,
  signal: AbortSignal,
): Promise<Drilled> {
  try {
    const booted = await bootMachine(machine, place, signal);
    return { machine, evidence: place.evidence, booted, findings: [...booted.findings] };
  } catch (error) {
    signal.throwIfAborted();
    const found = (code: DrillFinding['code'], what: string): Drilled => {
      return { machine, evidence: place.evidence, booted: null, findings: [{ code, what }] };
    };
    if (error instanceof QmpLost) return found('MACHINE_ENDED', 'QEMU ended as soon as it was started: see qemu.log');
    const what = explain(error);
    if (what === null) throw error;
    return found('POINT_UNUSABLE', what);
  }
}

/** While the disks are still open, and nobody writes any more. */
async function stopAndLook(drilled: readonly Drilled[], signal: AbortSignal): Promise<void> {
  for (const { booted, findings } of drilled)
    if (booted !== null && findings.length === 0 && !(await isStillUp(booted, signal)))
      findings.push({
        code: 'MACHINE_ENDED',
        what: 'it got there, but was not running any more at the end of the drill',
      });
  for (const { booted } of drilled) await booted?.qemu.stop();
  for (const { booted, findings } of drilled) {
    // First, for it is the reason of others.
    for (const disk of booted?.disks ?? []) findings.unshift(...(await disk.findings(signal)));
  }
}

async function isStillUp({ qemu }: BootedMachine, signal: AbortSignal): Promise<boolean> {
  try {
    const status = await qemu.qmp.run('query-status', {}, signal);
    return typeof status === 'object' && status !== null && 'running' in status && status.running === true;
  } catch (error) {
    if (error instanceof QmpLost) return false;
    throw error;
  }
}

function leftBehind(work: string, drilled: readonly Drilled[]): DrillFinding[] {
  const running = drilled.flatMap(({ booted }) => (booted !== null && isRunning(booted.qemu.pid) ? [booted.qemu] : []));
  return [
    ...(existsSync(work) ? [{ code: 'LEFT_BEHIND' as const, what: `${work} could not be removed` }] : []),
    ...running.map(({ pid }) => ({ code: 'LEFT_BEHIND' as const, what: `process ${pid} still runs` })),
  ];
}

function isRunning(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

function resultOf({ machine, evidence, booted, findings }: Drilled): MachineResult {
  const phases = booted?.phases ?? [{ phase: 'open', tookMs: Math.round(machine.openMs) } as const];
  const passed = findings.length === 0;
  return {
    machine: machine.name,
    machineId: machine.machineId,
    point: machine.point,
    snapshotTime: machine.snapshotTime,
    consistency: machine.consistency,
    excludedDisks: machine.excluded,
    outcome: passed ? 'passed' : 'failed',
    findings,
    firmware: booted?.firmware ?? null,
    phases,
    rtoMs: passed ? phases.reduce((sum, { tookMs }) => sum + tookMs, 0) : null,
    checks: booted?.checks ?? [],
    guest: booted?.guest ?? null,
    fetchedBytes: (booted?.disks ?? []).reduce((sum, disk) => sum + disk.fetchedBytes, 0),
    evidence: basename(evidence),
  };
}

function openMsOf(machines: readonly DrillMachine[]): number {
  return machines.reduce((sum, { openMs }) => sum + openMs, 0);
}

/** A name may hold anything; a folder must not lead elsewhere, nor two machines share one. */
function evidenceName(machine: DrillMachine, machines: readonly DrillMachine[]): string {
  const plain = ({ name }: DrillMachine): string => name.replace(/[^A-Za-z0-9._-]/g, '_').replace(/^\./, '_');
  const isShared =
    evidenceFiles.includes(plain(machine)) ||
    machines.some((other) => other !== machine && plain(other) === plain(machine));
  return isShared ? `${plain(machine)}-${machine.machineId.slice(0, 8)}` : plain(machine);
}
