import { allAtOnce } from '../../all-at-once.ts';
import type { Machine, MachineSnapshot, SnapshotOptions } from '../../hypervisor.ts';
import { MachineBusy } from '../kvm-errors.ts';
import type { KvmMachine, LibvirtControl } from '../kvm-machine.ts';
import { captureDefinition } from './capture-definition.ts';
import { CheckpointKeeper, tidyCheckpoints } from './checkpoint-keeper.ts';
import type { Checkpoint } from './checkpoints.ts';
import { identifyImage, trackDisk } from './disk-tracking.ts';
import { chooseDisks, type DiskSizes, describeDomain, type LibvirtDisk, sizesOf } from './domain.ts';
import { enterSite, type LibvirtSite, leaveFolder, prepareFolder, quietly } from './libvirt-site.ts';
import { openByPull } from './open-by-pull.ts';
import { openByPush } from './open-by-push.ts';
import type { TrackedDisk } from './run-images.ts';
import { findDomain, openVirsh } from './virsh.ts';

/**
 * A snapshot of all disks at one instant, by libvirt's backup job. Mostly an NBD server inside QEMU shows the disks as they were (pull);
 * where a disk has an iothread that would crash QEMU, which copies them to the scratch folder instead (push).
 */

export async function measureByLibvirt(
  machine: KvmMachine,
  control: LibvirtControl,
  signal: AbortSignal,
): Promise<Machine['disks']> {
  signal.throwIfAborted();
  using virsh = openVirsh(control.uri);
  const uuid = await findDomain(virsh, machine.name, control, signal);
  const { chosen } = chooseDisks(machine, await describeDomain(virsh, uuid, signal));
  const labels = chosen.map(({ label }) => label);
  const sizes = await sizesOf(virsh, uuid, labels, signal);
  return labels.map((label) => ({ label, capacityBytes: sizes(label).capacityBytes }));
}

export async function snapshotByLibvirt(
  machine: KvmMachine,
  control: LibvirtControl,
  options: SnapshotOptions,
  signal: AbortSignal,
): Promise<MachineSnapshot> {
  signal.throwIfAborted();
  await using opening = new AsyncDisposableStack();
  const site = await enterSite(machine, control, opening.use(openVirsh(control.uri)), signal);
  const { chosen, excluded } = chooseDisks(machine, site.domain);
  refuseBusy(machine.name, chosen);
  await prepareFolder(site);
  opening.defer(() => leaveFolder(site));
  const labels = chosen.map(({ label }) => label);
  const [checkpoints, attachments, sizes] = await allAtOnce([
    tidyCheckpoints(site, options, signal),
    captureDefinition(site, signal),
    sizesOf(site.virsh, site.domain.uuid, labels, signal),
  ]);
  const tracked = await trackDisks(site, chosen, checkpoints, options);
  const disks = tracked.map((each) => ({ ...each, ...sizes(each.disk.label) }));
  const added = site.marks.newReferencePoint();
  const keeper = new CheckpointKeeper(site, checkpoints, added);
  opening.defer(() => quietly(keeper.leave()));
  const open = chosen.some(({ hasIothread }) => hasIothread) ? openByPush : openByPull;
  const taken = await open(site, disks, added, options, opening, signal);
  const held = opening.move();
  return {
    takenAt: taken.takenAt,
    disks: taken.sources.map((source) => keeper.noting(source)),
    excluded,
    attachments,
    frozenMs: taken.frozenMs,
    async settleConsistency(settleSignal) {
      await taken.check(settleSignal);
      return taken.frozenMs === null ? 'crash-consistent' : 'application-consistent';
    },
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}

function refuseBusy(machineName: string, disks: readonly LibvirtDisk[]): void {
  const busy = disks.find(({ isBusy }) => isBusy);
  if (busy !== undefined)
    throw new MachineBusy(
      `machine ${machineName}: disk ${busy.label} is being copied or merged: run again when that has ended`,
    );
}

async function trackDisks(
  { place }: LibvirtSite,
  chosen: readonly LibvirtDisk[],
  checkpoints: readonly Checkpoint[],
  { since }: SnapshotOptions,
): Promise<readonly Omit<TrackedDisk, keyof DiskSizes>[]> {
  return await Promise.all(
    chosen.map(async (disk) => {
      const wanted = since === undefined ? undefined : (since.get(disk.label) ?? null);
      const image = await identifyImage(disk, place.kind === 'here');
      return { disk, tracking: trackDisk(disk, image, checkpoints, wanted) };
    }),
  );
}
