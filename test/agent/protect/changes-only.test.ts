import { expect, it } from 'vitest';
import { Coverage, withCoverage } from '../../../agent/progress/coverage.ts';
import { withReadRate } from '../../../agent/with-read-rate.ts';
import { SnapshotIncomplete } from '../../../hypervisors/errors.ts';
import type { HypervisorConnection } from '../../../hypervisors/hypervisor.ts';
import { Bandwidth } from '../../../storage-targets/bandwidth.ts';
import { ModelMachine } from '../../fakes/model-machine.ts';
import { filled } from '../../law/guest.ts';
import { ReplicaRig } from '../../rig/replica-rig.ts';

const capacityBytes = 3 * 2 ** 20;

/** A hypervisor that must know before the snapshot, and then copies nothing of a disk but what changed since: no other read is answered. */
function changesOnly(machine: ModelMachine): HypervisorConnection {
  const connection: HypervisorConnection = {
    listMachines: (signal) => machine.listMachines(signal),
    async snapshot(ref, options, signal) {
      const taken = await machine.snapshot(ref, options, signal);
      const disks = taken.disks.map((disk) => {
        if ((options.since?.get(disk.label) ?? null) === null) return disk;
        const changedExtents: typeof disk.changedExtents = (since, either) => {
          if (since === null) throw new SnapshotIncomplete(`disk ${disk.label}: more is needed`);
          return disk.changedExtents(since, either);
        };
        const read: typeof disk.read = async (offset, into, either) => {
          for await (const named of disk.changedExtents(options.since?.get(disk.label) ?? null, either))
            if (offset < named.offset + named.length && named.offset < offset + into.length)
              return await disk.read(offset, into, either);
          throw new SnapshotIncomplete(`disk ${disk.label}: nothing changed at ${offset}`);
        };
        return { ...disk, changesOnly: true as const, changedExtents, read };
      });
      return { ...taken, disks, [Symbol.asyncDispose]: () => taken[Symbol.asyncDispose]() };
    },
    [Symbol.asyncDispose]: () => machine[Symbol.asyncDispose](),
  };
  // As a command has it, with its progress and its read limit around it.
  return withCoverage(withReadRate(connection, new Bandwidth(null)), new Coverage());
}

it('a disk that is needed whole after all is read whole in the same run', async () => {
  await using rig = await ReplicaRig.create();
  const machine = new ModelMachine();
  const disk = machine.addDisk('system', capacityBytes);
  disk.write(0, filled(capacityBytes, 1, true));
  const connection = changesOnly(machine);
  await rig.protect(connection);

  disk.write(70_000, filled(5_000, 2, true));
  const sync = await rig.protect(connection);
  expect(sync.manifest.disks[0]?.fullReadReason).toBe('');
  expect(Buffer.compare(await rig.restore(sync.point, 'system'), disk.content.bytes())).toBe(0);

  disk.resize(capacityBytes + 2 ** 20);
  disk.write(capacityBytes + 4096, filled(9_000, 3, true));
  const grown = await rig.protect(connection);
  expect(grown.manifest.disks[0]?.fullReadReason).toMatch(/size changed/);
  expect(Buffer.compare(await rig.restore(grown.point, 'system'), disk.content.bytes())).toBe(0);
  expect(machine.openSnapshots).toBe(0);
});

it('is read whole each time that its blocks were not checked for so long, and not in between', async () => {
  await using rig = await ReplicaRig.create();
  const machine = new ModelMachine();
  const disk = machine.addDisk('system', capacityBytes);
  disk.write(0, filled(capacityBytes, 1, true));
  const connection = changesOnly(machine);
  const reasons: string[] = [];
  for (const day of [0, 10, 20, 31, 40]) {
    const nowMs = Date.UTC(2026, 0, 1) + day * 24 * 3_600_000;
    machine.now = rig.now = () => nowMs;
    disk.write(day * 70_000, filled(5_000, day, true));
    const { manifest, point } = await rig.protect(connection);
    reasons.push(manifest.disks[0]?.fullReadReason ?? '');
    expect(Buffer.compare(await rig.restore(point, 'system'), disk.content.bytes())).toBe(0);
  }
  const whole = expect.stringMatching(/^resync: disk system was last read whole 31 days ago/);
  expect(reasons).toEqual(['first full copy of this disk', '', '', whole, '']);
});
