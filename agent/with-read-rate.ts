import type { BlockSource, HypervisorConnection, MachineSnapshot } from '../hypervisors/hypervisor.ts';
import type { Bandwidth } from '../storage-targets/with-bandwidth.ts';

/** Reads of a machine's disks wait for their turn, so that those who use the same storage do not suffer. */
export function withReadRate(connection: HypervisorConnection, rate: Bandwidth): HypervisorConnection {
  return {
    listMachines: (signal) => connection.listMachines(signal),
    async snapshot(machine, options, signal) {
      return limited(await connection.snapshot(machine, options, signal), rate);
    },
    [Symbol.asyncDispose]: () => connection[Symbol.asyncDispose](),
  };
}

function limited(snapshot: MachineSnapshot, rate: Bandwidth): MachineSnapshot {
  return {
    takenAt: snapshot.takenAt,
    disks: snapshot.disks.map((disk) => limitedDisk(disk, rate)),
    excluded: snapshot.excluded,
    attachments: snapshot.attachments,
    settleConsistency: (signal) => snapshot.settleConsistency(signal),
    [Symbol.asyncDispose]: () => snapshot[Symbol.asyncDispose](),
  };
}

function limitedDisk(disk: BlockSource, rate: Bandwidth): BlockSource {
  const { direct } = disk;
  return {
    label: disk.label,
    capacityBytes: disk.capacityBytes,
    referencePoint: disk.referencePoint,
    changedExtents: (since, signal) => disk.changedExtents(since, signal),
    async read(offset, into, signal) {
      await rate.take(into.length, signal);
      await disk.read(offset, into, signal);
    },
    direct: direct && {
      fd: direct.fd,
      async admit(bytes, signal) {
        await rate.take(bytes, signal);
        await direct.admit(bytes, signal);
      },
    },
  };
}
