/** Of which machines vSphere takes no snapshots, and which disks a run leaves out. */
import { describe, expect, it } from 'vitest';
import type { VsphereDisk } from '../../../hypervisors/vsphere/machine-disks.ts';
import type { MachineSnapshotEntry, MachineState } from '../../../hypervisors/vsphere/machine-state.ts';
import { MachineUnusable } from '../../../hypervisors/vsphere/vsphere-errors.ts';
import type { VsphereMachine } from '../../../hypervisors/vsphere/vsphere-machine.ts';
import { chooseDisks, machineRefusal, refuseUnusable } from '../../../hypervisors/vsphere/vsphere-site.ts';

const ref = { type: 'VirtualMachine', id: 'vm-1' };
const snapshot = (depth: number): MachineSnapshotEntry => ({
  ...{ ref, name: 's', description: '', createdAt: null, quiesced: false, depth },
});
const state = (changed: Partial<MachineState>): MachineState => ({
  ...{ ref, name: 'web', instanceUuid: null, isTemplate: false, powerState: 'poweredOn', connectionState: 'connected' },
  ...{ host: null, hardwareVersion: 'vmx-19', firmware: 'bios', hasTpm: false, encrypted: false, tools: 'unknown' },
  ...{ tracking: 'on', needsConsolidation: false, disks: [], snapshots: [], currentSnapshot: null },
  ...{ runningTasks: [], datastores: [], ...changed },
});

describe('a machine', () => {
  it('is taken as it is, with as many snapshots as vSphere allows but one', () => {
    expect(machineRefusal(state({ snapshots: [snapshot(31)] }))).toBeNull();
  });

  it.each<[string, Partial<MachineState>]>([
    ['template', { isTemplate: true }],
    ['disconnected', { connectionState: 'disconnected' }],
    ['stands on 32 snapshots', { snapshots: [snapshot(3), snapshot(32)] }],
  ])('is refused, with the reason: %s', (why, changed) => {
    expect(machineRefusal(state(changed))).toContain(why);
  });
});

const disk = (label: string, changed: Partial<VsphereDisk> = {}): VsphereDisk => ({
  ...{ label, key: 1, capacityBytes: 1, file: '[ds] d.vmdk', identity: null, changeId: null, encrypted: false },
  ...{ refusal: null, ...changed },
});

it('an encrypted disk is read in clear, or not at all: what lies on its datastore no restore could open', () => {
  const refuse = (reads: VsphereMachine['reads'], excludedDisks: readonly string[] = []) =>
    refuseUnusable(
      {
        ...{ name: 'web', server: {} as VsphereMachine['server'], at: { path: 'x' }, excludedDisks, reads },
        ...{ tracking: 'enable', datastoreFreeBytesMin: 0, tag: '0badc0de' },
      },
      state({ encrypted: true, disks: [disk('scsi0:0'), disk('scsi0:1', { encrypted: true })] }),
    );
  expect(() => refuse('datastore')).toThrow(MachineUnusable);
  expect(() => refuse('datastore')).toThrow(/machine web: its disk scsi0:1 is encrypted by vSphere/);
  refuse('vddk');
  refuse('datastore', ['scsi0:1']);
});

it('disks that are excluded and those that vSphere leaves out are told apart', () => {
  const machine = { excludedDisks: ['scsi0:1'] };
  const disks = [disk('scsi0:0'), disk('scsi0:1'), disk('scsi0:2', { refusal: 'it is independent' })];
  const { chosen, excluded } = chooseDisks(machine, disks);
  expect(chosen.map(({ label }) => label)).toEqual(['scsi0:0']);
  expect(excluded).toEqual([
    { label: 'scsi0:1', reason: 'the configuration excludes it' },
    { label: 'scsi0:2', reason: 'it is independent' },
  ]);
});
