import { fine, hopeless, type MachineFinding, worrying } from '../kvm/machine-finding.ts';
import { closedPorts, hostsOfDisks } from './disk-hosts.ts';
import { type MachineState, readMachine } from './machine-state.ts';
import { missingPrivileges, onDatastores, privilegesFor } from './privileges.ts';
import { narrowDatastores } from './require-room.ts';
import type { VimSession } from './vim25/vim-session.ts';
import type { VsphereMachine } from './vsphere-machine.ts';
import { anyAgents, chooseDisks, enterSite, runRefusal, snapshotPrefix, type VsphereSite } from './vsphere-site.ts';

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
    ...(await examineDatastores(site, state, signal)),
    ...(await examineRoom(site, state, signal)),
    ...(machine.reads === 'vddk' ? await examineHosts(site, state, signal) : []),
  ];
  return { findings, disks: chosen };
}

function examineState(machine: VsphereMachine, state: MachineState): readonly MachineFinding[] {
  const findings: MachineFinding[] = [];
  const refusal = runRefusal(machine, state);
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
  findings.push(...examineSnapshots(machine, state));
  if (state.powerState === 'poweredOn' && state.tools !== 'guestToolsRunning')
    findings.push(worrying(null, 'VMware Tools do not run in it: points are crash-consistent', 'install VMware Tools'));
  if (state.hasTpm)
    findings.push(
      worrying(null, 'it has a virtual TPM, whose content is not captured', 'keep recovery keys elsewhere'),
    );
  if (state.firmware === 'efi' && state.encrypted)
    findings.push(
      worrying(
        null,
        'its UEFI variables are not captured, for vSphere encrypts them',
        'have a restored machine boot by the default path',
      ),
    );
  return findings;
}

function examineSnapshots(machine: VsphereMachine, { snapshots }: MachineState): readonly MachineFinding[] {
  const others = snapshots.filter(({ name }) => !name.startsWith(snapshotPrefix(machine)));
  if (others.length === 0) return [];
  const has = `it has snapshots of somebody else (${others.map(({ name }) => name).join(', ')})`;
  // This agent's own, too, if it once had another repository, or another name for the machine.
  const abandoned = others.some(({ name }) => anyAgents.test(name))
    ? '; those called failkit-… are of another agent or configuration, and nobody else removes them'
    : '';
  return machine.reads === 'datastore'
    ? [
        hopeless(
          `${has}: a disk that stands on one can't be read from its datastore`,
          `remove them, or read by vddk${abandoned}`,
        ),
      ]
    : [
        worrying(
          null,
          `${has}: disks grow, and tracking may not begin`,
          `remove them when nobody needs them any more${abandoned}`,
        ),
      ];
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

/** Files of a datastore are read where disks are, and for UEFI variables. */
async function examineDatastores(
  { session, machine }: VsphereSite,
  { firmware, encrypted, datastores }: MachineState,
  signal: AbortSignal,
): Promise<readonly MachineFinding[]> {
  const capturesNvram = firmware === 'efi' && !encrypted;
  if (!capturesNvram && machine.reads === 'vddk') return [];
  for (const ref of datastores) {
    const missing = await missingPrivileges({ session, ref }, onDatastores, signal);
    if (missing === null || missing.length === 0) continue;
    const lacks = `the account lacks ${missing.join(', ')} on a datastore of it`;
    return machine.reads === 'datastore'
      ? [hopeless(`its disks can't be read: ${lacks}`, 'give these on the datastore, or read by vddk')]
      : [
          worrying(
            null,
            `its UEFI variables are not captured: ${lacks}`,
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
  { session, machine }: VsphereSite,
  state: MachineState,
  signal: AbortSignal,
): Promise<readonly MachineFinding[]> {
  const { about } = await session.content(signal);
  // A single host calls itself localhost, or by a name that only it knows.
  const hosts = about.isVirtualCenter ? await hostsOfDisks(session, state, signal) : [machine.server.address.host];
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
