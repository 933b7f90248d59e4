import { win32 } from 'node:path';
import { SourceNotFound } from '../errors.ts';
import type { OpenFile } from '../vhdx/random-access-file.ts';
import { pause } from '../vsphere/pause.ts';
import { askJob, askMachine, type HypervDisk, type HypervState, type Started } from './hyperv-calls.ts';
import {
  HypervBusy,
  HypervElsewhere,
  HypervMachineUnusable,
  HypervRefused,
  HypervTimedOut,
  isNotFound,
} from './hyperv-errors.ts';
import { type HypervMachine, type HypervPace, pollPauseMs } from './hyperv-machine.ts';
import type { RunJournal } from './run-journal.ts';
import type { WorkerClient } from './worker-client.ts';

/** One machine, its host's worker, and what is written down of both: what every step of a run works with. */
export interface HypervSite {
  readonly client: WorkerClient;
  readonly machine: HypervMachine;
  readonly journal: RunJournal;
  readonly openFile: OpenFile;
  readonly pace: HypervPace;
}

/** Of our checkpoints of this machine; whoever's name begins otherwise is never touched for its name. */
export function checkpointPrefix({ tag }: HypervMachine): string {
  return `failkit-${tag}-`;
}

/**
 * Throws HypervElsewhere where another node of the cluster has it, of which this one knows nothing more: what is ours there is not gone.
 */
export async function readState(site: HypervSite, signal: AbortSignal): Promise<HypervState> {
  const state = await readWherever(site, signal);
  refuseElsewhere(site, state);
  return state;
}

/** Throws SourceNotFound where neither this host nor another one of its cluster has it. `sizes` as for askMachine. */
export async function readWherever(
  { client, machine }: HypervSite,
  signal: AbortSignal,
  sizes = false,
): Promise<HypervState> {
  try {
    return await askMachine(client, machine.vm, signal, sizes);
  } catch (error) {
    if (!isNotFound(error)) throw error;
    throw new SourceNotFound(
      `machine ${machine.name}: ${client.where} has no machine ${machine.vm}: failkit machines shows what it has`,
      { cause: error },
    );
  }
}

/** https://learn.microsoft.com/windows/win32/hyperv_v2/msvm-computersystem */
const enabledStates = { running: 2, off: 3 } as const;
/** From here on they are Hyper-V's own, and each one is work on the machine. */
const ownStatusMin = 32_768;
const inService = 11;
const resilientTrackingVersion = 8;

export function isRunning({ state }: HypervState): boolean {
  return state === enabledStates.running;
}

export function isMerging({ status }: HypervState): boolean {
  return status.includes(32_772);
}

/** Why no checkpoint can be had of it now, though later one may; null: nothing is in the way. */
export function whyBusy(state: HypervState): string | null {
  const working = state.status.find((each) => each >= ownStatusMin || each === inService);
  if (working !== undefined) return `Hyper-V is at work on it (operational status ${working})`;
  const rests = [enabledStates.running, enabledStates.off].some((each) => each === state.state);
  return rests ? null : `it neither runs nor is off (state ${state.state}: paused, saved or on its way)`;
}

/** Whoever made them. */
export function snapshotNames({ checkpoints }: Pick<HypervState, 'checkpoints'>): readonly string[] {
  return checkpoints.map(({ name }) => name);
}

/** Below it a checkpoint can be had, and nobody knows what changed since. */
export function tracksChanges({ version }: HypervState): boolean {
  return Number.parseFloat(version) >= resilientTrackingVersion;
}

function refuseElsewhere(site: HypervSite, { owner, node }: HypervState): void {
  if (owner === null || owner.toLowerCase() === node.toLowerCase()) return;
  throw new HypervElsewhere(
    `machine ${site.machine.name} runs on ${owner}, and ${site.machine.host.name} is ${node}: run it from there, or name that host in the configuration`,
  );
}

/** Until nobody is at work on the machine. */
export async function whenIdle(site: HypervSite, signal: AbortSignal): Promise<HypervState> {
  const { machine, pace } = site;
  const end = Date.now() + pace.busyMs;
  for (let attempt = 0; ; attempt++) {
    const state = await readState(site, signal);
    const why = whyBusy(state);
    // A merge may take hours, and is waited for where it is ours.
    if (why === null || isMerging(state)) return state;
    if (Date.now() >= end) throw new HypervBusy(`machine ${machine.name}: ${why}: run again when that has ended`);
    await pause(pollPauseMs(pace, attempt), signal);
  }
}

/** What it made. Throws HypervRefused with the job's own numbers. */
export async function finishJob(
  site: HypervSite,
  what: string,
  started: Started,
  limitMs: number,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const { client, machine, pace } = site;
  if (started.job === null) return started.made === null ? [] : [started.made];
  const end = Date.now() + limitMs;
  for (let attempt = 0; ; attempt++) {
    const { state, errorCode, hresult, description, made } = await askJob(client, started.job, signal);
    if (state === jobStates.completed) return made;
    if (state > jobStates.completed)
      throw new HypervRefused(
        `machine ${machine.name}: ${what} failed on ${client.where} (job state ${state}, error ${errorCode}${hresult === null ? '' : `, ${hresult}`}): ${description}`,
        { kind: 'refused', returnValue: errorCode, hresult },
      );
    if (Date.now() >= end)
      throw new HypervTimedOut(`machine ${machine.name}: ${what} takes more than ${limitMs / 1000} s: it goes on`);
    await pause(pollPauseMs(pace, attempt), signal);
  }
}

/** New, starting, running, suspended and shutting down are all below: none of them is an end. */
const jobStates = { completed: 7 } as const;

interface ChosenDisks {
  readonly chosen: readonly HypervDisk[];
  readonly excluded: readonly { readonly label: string; readonly reason: string }[];
}

export function chooseDisks({ excludedDisks }: HypervMachine, disks: readonly HypervDisk[]): ChosenDisks {
  const reasonOf = (disk: HypervDisk): string | null =>
    excludedDisks.includes(disk.label) ? 'the configuration excludes it' : diskRefusal(disk);
  return {
    chosen: disks.filter((disk) => reasonOf(disk) === null),
    excluded: disks.flatMap((disk) => {
      const reason = reasonOf(disk);
      return reason === null ? [] : [{ label: disk.label, reason }];
    }),
  };
}

/** Why it can't be protected; null: nothing is in the way. */
export function diskRefusal({ path, passThrough, shared }: HypervDisk): string | null {
  if (passThrough && path === '')
    return 'it is a virtual Fibre Channel port, and no checkpoint holds the disks behind it: protect them from inside the guest';
  if (passThrough)
    return 'it is a disk of the host that is passed through, which no checkpoint holds: protect it from inside the guest';
  const extension = win32.extname(path).toLowerCase();
  if (extension === '.vhds') return 'it is a VHD set, of which only a collection of machines has checkpoints';
  if (shared) return 'it is shared by several machines: no checkpoint of one of them holds it';
  return ['.vhd', '.vhdx', '.avhd', '.avhdx'].includes(extension)
    ? null
    : `its file is none that is read here (${path})`;
}

export function refuseWithoutDisks({ name }: HypervMachine, chosen: readonly HypervDisk[]): void {
  if (chosen.length > 0) return;
  throw new HypervMachineUnusable(`machine ${name} has no disk that can be protected: failkit machines says why`);
}
