import type { VsphereDisk } from './machine-disks.ts';
import { findMachine, type MachineState } from './machine-state.ts';
import type { Reference } from './vim25/soap-xml.ts';
import type { VimSession } from './vim25/vim-session.ts';
import { MachineUnusable } from './vsphere-errors.ts';
import type { VsphereMachine } from './vsphere-machine.ts';

/** One machine, and the connection to its server: what every step of a run works with. */
export interface VsphereSite {
  readonly session: VimSession;
  readonly machine: VsphereMachine;
  readonly ref: Reference;
}

export async function enterSite(
  session: VimSession,
  machine: VsphereMachine,
  signal: AbortSignal,
): Promise<VsphereSite> {
  return { session, machine, ref: await findMachine(session, machine, signal) };
}

/** Of our snapshots of this machine; whoever's name begins otherwise is never touched. */
export function snapshotPrefix({ tag }: VsphereMachine): string {
  return `failkit-${tag}-`;
}

/** A snapshot of any agent. */
export const anyAgents = /^failkit-[0-9a-f]{8}-/;

interface ChosenDisks {
  readonly chosen: readonly VsphereDisk[];
  readonly excluded: readonly { readonly label: string; readonly reason: string }[];
}

export function chooseDisks(
  { excludedDisks }: Pick<VsphereMachine, 'excludedDisks'>,
  disks: readonly VsphereDisk[],
): ChosenDisks {
  const reasonOf = ({ label, refusal }: VsphereDisk): string | null =>
    excludedDisks.includes(label) ? 'the configuration excludes it' : refusal;
  return {
    chosen: disks.filter((disk) => reasonOf(disk) === null),
    excluded: disks.flatMap((disk) => {
      const reason = reasonOf(disk);
      return reason === null ? [] : [{ label: disk.label, reason }];
    }),
  };
}

/** Why no snapshot of the machine can be had at all; null: nothing is in the way. */
export function machineRefusal(state: MachineState): string | null {
  if (state.isTemplate) return 'it is a template: vSphere takes no snapshots of it';
  if (state.connectionState !== 'connected') return `its host does not have it (${state.connectionState})`;
  if (Math.max(0, ...state.snapshots.map(({ depth }) => depth)) >= snapshotDepthMax)
    return `it stands on ${snapshotDepthMax} snapshots, and vSphere takes no more: remove some`;
  return null;
}

/** https://knowledge.broadcom.com/external/article/318825 */
const snapshotDepthMax = 32;

/** Why a run as it is configured can't have the machine; null: nothing is in the way. */
export function runRefusal(machine: VsphereMachine, state: MachineState): string | null {
  return machineRefusal(state) ?? sealedRefusal(machine, state);
}

/** A datastore hands out what lies on it, and the keys of that are vSphere's: no restore could open it. VDDK gives it in clear. */
function sealedRefusal(machine: VsphereMachine, { disks }: MachineState): string | null {
  const sealed = chooseDisks(machine, disks).chosen.find(({ encrypted }) => encrypted);
  return machine.reads === 'vddk' || sealed === undefined
    ? null
    : `its disk ${sealed.label} is encrypted by vSphere, and its datastore hands out nothing else: set reads to vddk`;
}

export function refuseUnusable(machine: VsphereMachine, state: MachineState): void {
  const refusal = runRefusal(machine, state);
  if (refusal !== null) throw new MachineUnusable(`machine ${machine.name}: ${refusal}`);
}
