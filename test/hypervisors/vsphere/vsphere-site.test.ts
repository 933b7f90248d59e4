/** Of which machines vSphere takes no snapshots, and which disks a run leaves out. */
import { describe, expect, it } from 'vitest';
import type { VsphereDisk } from '../../../hypervisors/vsphere/machine-disks.ts';
import type { MachineSnapshotEntry, MachineState } from '../../../hypervisors/vsphere/machine-state.ts';
import { chooseDisks, machineRefusal } from '../../../hypervisors/vsphere/vsphere-site.ts';

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

it('disks that are excluded and those that vSphere leaves out are told apart', () => {
  const disk = (label: string, refusal: string | null): VsphereDisk => ({
    ...{ label, key: 1, capacityBytes: 1, file: '[ds] d.vmdk', identity: null, changeId: null, encrypted: false },
    refusal,
  });
  const machine = { excludedDisks: ['scsi0:1'] };
  const disks = [disk('scsi0:0', null), disk('scsi0:1', null), disk('scsi0:2', 'it is independent')];
  const { chosen, excluded } = chooseDisks(machine, disks);
  expect(chosen.map(({ label }) => label)).toEqual(['scsi0:0']);
  expect(excluded).toEqual([
    { label: 'scsi0:1', reason: 'the configuration excludes it' },
    { label: 'scsi0:2', reason: 'it is independent' },
  ]);
});
