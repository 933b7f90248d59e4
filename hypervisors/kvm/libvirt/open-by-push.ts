import { SourceUnreadable } from '../../errors.ts';
import type { BlockSource, SnapshotOptions } from '../../hypervisor.ts';
import { ScratchFull, SnapshotLost } from '../kvm-errors.ts';
import { freeBytes, type ScratchFolder, watchScratch } from '../scratch-images.ts';
import { pushDocument } from './backup-documents.ts';
import { failureOfLastJob, waitUntilOver } from './backup-job.ts';
import { listCheckpoints } from './checkpoints.ts';
import { endJobAtLast, type LibvirtSite } from './libvirt-site.ts';
import type { OpenSnapshot } from './open-snapshot.ts';
import { openPushedDisk, pushedChangesBytesMax } from './pushed-disk.ts';
import { checkpointFor, imageOf, makeImage, othersOf, type TrackedDisk } from './run-images.ts';
import { SnapshotHealth } from './snapshot-health.ts';
import { takePoint } from './take-point.ts';

/** QEMU copies the disks, or what changed of them, to the scratch folder; they are read when it has finished. */

const pushTimeoutMs = 24 * 60 * 60 * 1000;

interface PlannedDisk extends TrackedDisk {
  readonly since: string | null;
}

export async function openByPush(
  site: LibvirtSite,
  disks: readonly TrackedDisk[],
  added: string,
  { quiesce }: SnapshotOptions,
  opening: AsyncDisposableStack,
  signal: AbortSignal,
): Promise<OpenSnapshot> {
  const { machine } = site;
  if (site.place.kind !== 'here')
    throw new SourceUnreadable(
      `machine ${machine.name} has a disk with an iothread, which QEMU copies to its own host: run the agent there`,
    );
  const planned = await planDisks(site, disks, signal);
  const others = othersOf(site, disks);
  const listed = planned.map(({ disk, since }) => ({ label: disk.label, image: imageOf(site, disk), since }));
  const documents = [pushDocument(listed, others), ...checkpointFor(added, disks, others)];
  for (const disk of planned) await makeImage(site, disk, signal);
  endJobAtLast(site, opening);
  const taken = await takePoint(site, documents, quiesce);
  await finishPush(site, signal);
  const sources: BlockSource[] = [];
  for (const { disk, tracking, since } of planned) {
    const pushed = {
      label: disk.label,
      image: imageOf(site, disk),
      since,
      referencePoint: tracking.referencePoint(added),
      requireSince: (asked: Uint8Array) => tracking.requireSince(asked),
    };
    sources.push(await openPushedDisk(pushed, opening, signal));
  }
  // The copies are whole, and nobody changes them any more.
  return { ...taken, sources, check: async (either) => either.throwIfAborted() };
}

/** Throws ScratchFull where the copies would not fit. */
async function planDisks(
  { virsh, domain: { uuid }, scratch, marks }: LibvirtSite,
  disks: readonly TrackedDisk[],
  signal: AbortSignal,
): Promise<readonly PlannedDisk[]> {
  const checkpoints = await listCheckpoints(virsh, uuid, marks, signal);
  let neededBytes = 0;
  const planned: PlannedDisk[] = [];
  for (const each of disks) {
    const { disk, tracking, capacityBytes, allocatedBytes } = each;
    const since = capacityBytes > pushedChangesBytesMax ? null : tracking.since;
    const changed = checkpoints.find(({ name }) => name === since)?.dirtyBytes.get(disk.label);
    neededBytes += changed ?? allocatedBytes;
    planned.push({ ...each, since });
  }
  await requireRoom(scratch, neededBytes);
  return planned;
}

async function requireRoom({ folder, freeBytesMin }: ScratchFolder, neededBytes: number): Promise<void> {
  const free = await freeBytes(folder);
  if (free - neededBytes >= freeBytesMin) return;
  throw new ScratchFull(
    `the scratch folder ${folder} has ${free} bytes free, and the copy of the disks needs up to ${neededBytes} besides scratchFreeMiBMin: make room, or name another folder`,
  );
}

async function finishPush(site: LibvirtSite, signal: AbortSignal): Promise<void> {
  const { virsh, machine, domain, marks, scratch } = site;
  await using health = new SnapshotHealth(site);
  using _watching = watchScratch(scratch, (full) => health.giveUp(full));
  await waitUntilOver(virsh, domain.uuid, marks, signal, pushTimeoutMs);
  if (health.failure !== null) throw health.failure;
  const failure = await failureOfLastJob(virsh, domain.uuid, signal);
  if (failure !== null)
    throw new SnapshotLost(`machine ${machine.name}: QEMU did not finish the copy of its disks: ${failure}`);
}
