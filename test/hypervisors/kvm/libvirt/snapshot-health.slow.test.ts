import { expect, it } from 'vitest';
import type { BlockSource } from '../../../../hypervisors/hypervisor.ts';
import { ScratchFull } from '../../../../hypervisors/kvm/kvm-errors.ts';
import type { Domain } from '../../../../hypervisors/kvm/libvirt/domain.ts';
import { LibvirtUnreachable } from '../../../../hypervisors/kvm/libvirt/libvirt-errors.ts';
import { SnapshotHealth } from '../../../../hypervisors/kvm/libvirt/snapshot-health.ts';
import { marksOf } from '../../../../hypervisors/kvm/marks.ts';
import { virshThatSays } from './virsh-that-says.ts';

const never = new AbortController().signal;
const stoppedForWantOfRoom = 'state.state=3\nstate.reason=5\n';

it('a guest that stands still for want of room is found though libvirt was away before, and nothing more is read', async () => {
  const domstats = [new LibvirtUnreachable('libvirtd restarts'), stoppedForWantOfRoom];
  const domain: Domain = { uuid: 'u', disks: [], guestAgent: 'missing', nvram: null, hasTpm: false, runsAs: null };
  const site = { virsh: virshThatSays({ domstats }), domain, marks: marksOf('00000000'), folder: '/nowhere' };
  await using health = new SnapshotHealth(site);
  const disk = health.watching(emptyDisk());
  await disk.read(0, new Uint8Array(1), never);
  await expect.poll(() => health.failure, { timeout: 30_000 }).toBeInstanceOf(ScratchFull);
  await expect(disk.read(0, new Uint8Array(1), never)).rejects.toThrow(ScratchFull);
  await expect(disk.changedExtents(null, never)[Symbol.asyncIterator]().next()).rejects.toThrow(ScratchFull);
});

function emptyDisk(): BlockSource {
  return {
    label: 'vda',
    capacityBytes: 1,
    referencePoint: null,
    direct: null,
    changesOnly: false,
    async *changedExtents() {
      yield { offset: 0, length: 1, zero: true };
    },
    read: async (_, into) => {
      into.fill(0);
    },
  };
}
