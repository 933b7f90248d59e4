import { type MachineSnapshotEntry, type MachineState, readMachine } from './machine-state.ts';
import { pause } from './pause.ts';
import { booleanTag, childText, type Reference } from './vim25/soap-xml.ts';
import { readTask, runTask, waitForTask } from './vim25/tasks.ts';
import {
  isFault,
  VsphereBusy,
  VsphereDenied,
  VsphereRefused,
  VsphereSnapshotStuck,
  VsphereTimedOut,
} from './vsphere-errors.ts';
import { snapshotPrefix, type VsphereSite } from './vsphere-site.ts';

/** What a killed run left behind goes, what still runs is waited for, and nobody else's snapshot is touched. */

/** Merging what was written meanwhile takes hours where much was. */
const removalTimeoutMs = 6 * 3600 * 1000;
const runningTaskTimeoutMs = 30 * 60 * 1000;
/** Between attempts at what somebody holds locked. The next run tries again, too. */
const lockPausesMs = [1_000, 5_000, 15_000];
/** The tasks that a snapshot must not run beside; their names differ between releases. */
const inTheWay = /snapshot|consolidate/i;
const lockFaults = [
  'FileLocked',
  'FileFault',
  'CannotAccessFile',
  'FilesInUse',
  'ResourceInUse',
  'TaskInProgress',
  'GenericVmConfigFault',
  'InvalidState',
];

/** Afterwards no snapshot of ours is left. Returns the machine as it is then. */
export async function makeWay(site: VsphereSite, signal: AbortSignal): Promise<MachineState> {
  const { session, ref, machine } = site;
  await waitForOthers(site, signal);
  const state = await readMachine(session, ref, signal);
  const ours = state.snapshots.filter(({ name }) => name.startsWith(snapshotPrefix(machine)));
  // The newest first: each then has no child of ours.
  for (const snapshot of ours.reverse()) await removeSnapshot(site, snapshot, signal);
  if (ours.length > 0 || state.needsConsolidation) await consolidate(site, signal);
  return await readMachine(session, ref, signal);
}

/** A task that a run of ours began, or somebody else's: what it does has to be over before the machine is looked at. */
export async function waitForOthers({ session, ref, machine }: VsphereSite, signal: AbortSignal): Promise<void> {
  const { runningTasks } = await readMachine(session, ref, signal);
  for (const task of await stillRunning(runningTasks)) {
    try {
      await waitForTask(session, task.ref, task.what, runningTaskTimeoutMs, signal);
    } catch (error) {
      if (error instanceof VsphereTimedOut)
        throw new VsphereBusy(
          `machine ${machine.name}: vSphere is still at ${task.what}: run again when that has ended`,
        );
      // How it ended is for whoever began it.
      if (!(error instanceof VsphereRefused || error instanceof VsphereDenied)) throw error;
    }
  }

  async function stillRunning(tasks: readonly Reference[]): Promise<readonly { ref: Reference; what: string }[]> {
    const found: { ref: Reference; what: string }[] = [];
    for (const ref of tasks) {
      // A machine lists tasks that vSphere itself has forgotten.
      const info = await readTask(session, ref, signal);
      const what = childText(info, 'descriptionId') ?? childText(info, 'name') ?? '';
      const runs = ['running', 'queued'].includes(childText(info, 'state')?.trim() ?? '');
      if (runs && inTheWay.test(what)) found.push({ ref, what });
    }
    return found;
  }
}

async function removeSnapshot(site: VsphereSite, snapshot: MachineSnapshotEntry, signal: AbortSignal): Promise<void> {
  const { session, machine, ref } = site;
  const isGone = async (): Promise<boolean> =>
    !(await readMachine(session, ref, signal)).snapshots.some((each) => each.ref.id === snapshot.ref.id);
  const parameters = [booleanTag('removeChildren', false), booleanTag('consolidate', true)];
  await despiteLocks(`machine ${machine.name}: its snapshot ${snapshot.name} can't be removed`, signal, async () => {
    try {
      await runTask(session, 'RemoveSnapshot_Task', snapshot.ref, parameters, removalTimeoutMs, signal);
    } catch (error) {
      // Another task of ours, or a person, was quicker.
      if (isFault(error, 'ManagedObjectNotFound', 'NotFound') && (await isGone())) return;
      throw error;
    }
    if (!(await isGone()))
      throw new VsphereSnapshotStuck(
        `machine ${machine.name}: snapshot ${snapshot.name} is still there after vSphere removed it`,
      );
  });
}

/** Removed snapshots may leave their files in the disks' chains. */
async function consolidate(site: VsphereSite, signal: AbortSignal): Promise<void> {
  const { session, machine, ref } = site;
  await despiteLocks(`machine ${machine.name}: its disks need consolidation`, signal, async () => {
    if (!(await readMachine(session, ref, signal)).needsConsolidation) return;
    await runTask(session, 'ConsolidateVMDisks_Task', ref, [], removalTimeoutMs, signal);
  });
}

async function despiteLocks(what: string, signal: AbortSignal, work: () => Promise<void>): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    try {
      await work();
      return;
    } catch (error) {
      if (!isFault(error, ...lockFaults)) throw error;
      const pauseMs = lockPausesMs[attempt];
      if (pauseMs === undefined)
        throw new VsphereSnapshotStuck(
          `${what}: something holds its files: ${error.detail.fault}: ${error.detail.words}: no other snapshot is taken before that is mended`,
          { cause: error },
        );
      await pause(pauseMs, signal);
    }
  }
}
