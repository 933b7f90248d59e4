import { BaseSequencer, type TestSpecification } from 'vitest/node';

/** Files that take more than about half a minute, the longest first: one that began last would run alone at the end. */
const longest = [
  'faults/kill-sweep.slow',
  'life/thirty-days.slow',
  'life/thirty-days-locked.slow',
  'tamper/tamper-sweep.slow',
  'end-to-end/qmp-machine.peer',
  'drill/drill.peer',
  'hypervisors/hyperv/hyperv-histories.slow',
  'faults/durability.slow',
  'end-to-end/store-faults.peer',
  'end-to-end/wire-faults.peer',
  'faults/fault-sweep.slow',
  'end-to-end/libvirt-machine.peer',
  'end-to-end/libvirt-faults.peer',
  'end-to-end/libvirt-faults-by-push.peer',
  'end-to-end/vsphere-machine.peer',
  'hypervisors/vsphere/vsphere-cycles.peer',
  'end-to-end/libvirt-disks.peer',
  'end-to-end/libvirt-restore.peer',
  'end-to-end/libvirt-through-ssh.peer',
  'docs/vsphere-acceptance.peer',
  'end-to-end/vsphere-restore.peer',
  'protocol/protocol.slow',
  'law/law.slow',
  'faults/system-errors.slow',
  'faults/disk-full.slow',
  'end-to-end/error-table.peer',
  'end-to-end/locked-in-other-clouds.peer',
  'end-to-end/two-hosts.peer',
  'end-to-end/hyperv-machine.slow',
  'hypervisors/hyperv/hyperv-cycle.slow',
  'end-to-end/hyperv-through-ssh.peer',
  'storage-targets/s3.peer',
  'storage-targets/bandwidth-on-the-wire.peer',
  'hypervisors/kvm/snapshot-by-qmp.peer',
  'hypervisors/nbd/nbd-speed.peer',
  'end-to-end/fragmented-disk.slow',
  'agent/protect/any-damage.slow',
  'drill/debian-drill.peer',
  'peers/guest.peer',
  'law/large-disks.slow',
  'protocol/mutants.slow',
].map((name) => `/test/${name}.test.ts`);

/** In a fresh clone nothing else says how long a file takes. */
export class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    return (await super.sort(files)).sort((a, b) => rank(a) - rank(b));
  }
}

function rank({ moduleId }: TestSpecification): number {
  const found = longest.findIndex((name) => moduleId.endsWith(name));
  return found === -1 ? longest.length : found;
}
