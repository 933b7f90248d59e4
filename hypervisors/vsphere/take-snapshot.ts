import { randomBytes } from 'node:crypto';
import { QuiesceUnavailable } from '../errors.ts';
import type { SnapshotOptions } from '../hypervisor.ts';
import { type MachineSnapshotEntry, type MachineState, readMachine } from './machine-state.ts';
import { makeWay, waitForOthers } from './make-way.ts';
import { booleanTag, tag } from './vim25/soap-xml.ts';
import { runTask } from './vim25/tasks.ts';
import { isUnheard, VsphereAnswerInvalid, VsphereRefused } from './vsphere-errors.ts';
import { snapshotPrefix, type VsphereSite } from './vsphere-site.ts';

/** The instant of a recovery point: one snapshot of all disks, quiesced where that can be had. */

const snapshotTimeoutMs = 30 * 60 * 1000;
const quiesceFaults = [
  'ApplicationQuiesceFault',
  'FilesystemQuiesceFault',
  'ToolsUnavailable',
  'ToolsUnavailableFault',
];

export interface TakenSnapshot {
  readonly takenAt: Date;
  readonly entry: MachineSnapshotEntry;
}

export async function takeSnapshot(
  site: VsphereSite,
  state: MachineState,
  quiesce: SnapshotOptions['quiesce'],
  signal: AbortSignal,
): Promise<TakenSnapshot> {
  const { machine } = site;
  const quiescible = state.powerState === 'poweredOn';
  if (quiesce === 'require' && !quiescible) throw unquiesced(machine.name, 'it does not run');
  if (quiesce === 'off' || !quiescible) return await create(site, false, signal);
  try {
    const taken = await create(site, true, signal);
    // Without Tools in the guest vSphere takes the other kind, and says so only here.
    if (quiesce === 'require' && !taken.entry.quiesced)
      throw unquiesced(machine.name, `VMware Tools did not do it (they are ${state.tools})`);
    return taken;
  } catch (error) {
    if (!(error instanceof VsphereRefused) || !quiesceFaults.includes(error.detail.fault)) throw error;
    if (quiesce === 'require') throw unquiesced(machine.name, `${error.detail.fault}: ${error.detail.words}`);
    await makeWay(site, signal);
    return await create(site, false, signal);
  }
}

async function create(site: VsphereSite, quiesce: boolean, signal: AbortSignal): Promise<TakenSnapshot> {
  const { session, ref, machine } = site;
  const name = `${snapshotPrefix(machine)}${randomBytes(8).toString('hex')}`;
  const description = 'A recovery point is read from it. failkit removes it at the end of its run.';
  const parameters = [
    tag('name', name),
    tag('description', description),
    booleanTag('memory', false),
    booleanTag('quiesce', quiesce),
  ];
  const takenAt = new Date();
  try {
    await runTask(session, 'CreateSnapshot_Task', ref, parameters, snapshotTimeoutMs, signal);
  } catch (error) {
    // It is never asked for twice: it may be there, or still on its way.
    if (!isUnheard(error)) throw error;
    await waitForOthers(site, signal);
    const entry = await find(site, name, signal);
    if (entry === null) throw error;
    return { takenAt, entry };
  }
  const entry = await find(site, name, signal);
  if (entry === null)
    throw new VsphereAnswerInvalid(`machine ${machine.name}: vSphere took snapshot ${name}, and does not list it`);
  return { takenAt, entry };
}

async function find(
  { session, ref }: VsphereSite,
  name: string,
  signal: AbortSignal,
): Promise<MachineSnapshotEntry | null> {
  const { snapshots } = await readMachine(session, ref, signal);
  return snapshots.find((each) => each.name === name) ?? null;
}

function unquiesced(machineName: string, why: string): QuiesceUnavailable {
  return new QuiesceUnavailable(`machine ${machineName} can't be quiesced: ${why}`);
}
