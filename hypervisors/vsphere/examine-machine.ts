import { fine, hopeless, type MachineFinding, worrying } from '../kvm/machine-finding.ts';
import { closedPorts, hostsOfDisks } from './disk-hosts.ts';
import { type MachineState, readMachine } from './machine-state.ts';
import { missingPrivileges, privilegesFor, toCaptureNvram } from './privileges.ts';
import { narrowDatastores } from './require-room.ts';
import type { VimSession } from './vim25/vim-session.ts';
import type { VsphereMachine } from './vsphere-machine.ts';
import { chooseDisks, enterSite, machineRefusal, snapshotPrefix, type VsphereSite } from './vsphere-site.ts';

/** What stands in the way of a snapshot, or will. Asks only, and leaves the machine as it is. */
export interface ExaminedMachine {
  readonly findings: readonly MachineFinding[];
  readonly disks: readonly { readonly label: string; readonly capacityBytes: number }[];
}

/** Throws where the server can't be asked, or knows no such machine. */
export async function examineMachine(
  session: VimSession,
  machine: VsphereMachine,
  signal: AbortSignal,
): Promise<ExaminedMachine> {
  const site = await enterSite(session, machine, signal);
  const state = await readMachine(session, site.ref, signal);
  const { chosen } = chooseDisks(machine, state.disks);
  const findings = [
    ...examineState(machine, state),
    ...examineDisks(machine, state),
    ...(await examinePrivileges(site, state, signal)),
    ...(await examineNvram(site, state, signal)),
    ...(await examineRoom(site, state, signal)),
    ...(await examineHosts(session, state, signal)),
  ];
  return { findings, disks: chosen };
}

function examineState(machine: VsphereMachine, state: MachineState): readonly MachineFinding[] {
  const findings: MachineFinding[] = [];
  const refusal = machineRefusal(state);
  if (refusal !== null) findings.push(hopeless(refusal, 'protect it in another way'));
  if (state.tracking === 'on') findings.push(fine('tracks its changes'));
  if (state.tracking === 'off' && machine.tracking === 'enable')
    findings.push(fine('changed block tracking is off, and the first run switches it on'));
  if (state.tracking === 'off' && machine.tracking === 'leave')
    findings.push(worrying(null, 'changed block tracking is off: each run reads everything', 'set tracking: enable'));
  if (state.tracking === 'impossible')
    findings.push(
      worrying(
        null,
        `its virtual hardware (${state.hardwareVersion}) has no changed block tracking: each run reads everything`,
        'upgrade its virtual hardware',
      ),
    );
  if (state.needsConsolidation)
    findings.push(worrying(null, 'its disks need consolidation', 'nothing to do: the next run has it done'));
  const others = state.snapshots.filter(({ name }) => !name.startsWith(snapshotPrefix(machine)));
  if (others.length > 0)
    findings.push(
      worrying(
        null,
        `it has snapshots of somebody else (${others.map(({ name }) => name).join(', ')}): disks grow, and tracking may not begin`,
        'remove them when nobody needs them any more',
      ),
    );
  if (state.powerState === 'poweredOn' && state.tools !== 'guestToolsRunning')
    findings.push(worrying(null, 'VMware Tools do not run in it: points are crash-consistent', 'install VMware Tools'));
  if (state.hasTpm)
    findings.push(
      worrying(null, 'it has a virtual TPM, whose content is not captured', 'keep recovery keys elsewhere'),
    );
  return findings;
}

function examineDisks(machine: VsphereMachine, state: MachineState): readonly MachineFinding[] {
  const { chosen, excluded } = chooseDisks(machine, state.disks);
  const left = excluded.filter(({ label }) => !machine.excludedDisks.includes(label));
  return [
    ...(chosen.length === 0
      ? [hopeless('no disk of it can be protected', 'see failkit machines for the reasons')]
      : []),
    ...left.map(({ label, reason }) =>
      worrying(label, `it is left out: ${reason}`, 'name it under exclude, so that nobody is surprised'),
    ),
  ];
}

async function examinePrivileges(
  site: VsphereSite,
  state: MachineState,
  signal: AbortSignal,
): Promise<readonly MachineFinding[]> {
  const missing = await missingPrivileges(site, privilegesFor(site.machine, state), signal);
  if (missing === null)
    return [worrying(null, 'vSphere does not tell what the account may do', 'compare its role with the documentation')];
  if (missing.length === 0) return [fine('the account has every privilege that a run needs')];
  return [hopeless(`the account lacks ${missing.join(', ')}`, 'give it the role of docs/operations/vsphere.md')];
}

async function examineNvram(
  { session }: VsphereSite,
  { firmware, datastores }: MachineState,
  signal: AbortSignal,
): Promise<readonly MachineFinding[]> {
  if (firmware !== 'efi') return [];
  for (const ref of datastores) {
    const missing = await missingPrivileges({ session, ref }, toCaptureNvram, signal);
    if (missing === null || missing.length === 0) continue;
    return [
      worrying(
        null,
        `its UEFI variables are not captured: the account lacks ${missing.join(', ')} on a datastore of it`,
        'give these on the datastore, or have a restored machine boot by the default path',
      ),
    ];
  }
  return [];
}

async function examineRoom(
  { session, machine }: VsphereSite,
  state: MachineState,
  signal: AbortSignal,
): Promise<readonly MachineFinding[]> {
  const narrow = await narrowDatastores(session, state, machine.datastoreFreeBytesMin, signal);
  return narrow.map(({ name, freeBytes }) =>
    hopeless(
      `datastore ${name} has ${freeBytes} bytes left, and no snapshot is taken below ${machine.datastoreFreeBytesMin}`,
      'make room on it, or lower datastoreFreeMiBMin',
    ),
  );
}

async function examineHosts(
  session: VimSession,
  state: MachineState,
  signal: AbortSignal,
): Promise<readonly MachineFinding[]> {
  const hosts = await hostsOfDisks(session, state, signal);
  const closed = await closedPorts(hosts, signal);
  if (closed.length === 0) return [fine(`all hosts that have its datastores can be reached (${hosts.join(', ')})`)];
  return closed.map(({ host, port, why }) =>
    worrying(
      null,
      `host ${host} can't be reached at port ${port} (${why}), and vSphere may choose it to serve a disk`,
      'let this host connect to ports 902 and 443 of every ESXi host, by the names that vCenter has',
    ),
  );
}
