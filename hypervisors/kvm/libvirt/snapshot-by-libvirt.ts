import { chmod, chown, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { SourceUnreadable } from '../../errors.ts';
import type { BlockSource, Machine, MachineSnapshot, SnapshotOptions } from '../../hypervisor.ts';
import { baseAllocation, NbdDisk } from '../../nbd/nbd-disk.ts';
import { nbdBlockSource } from '../../nbd/nbd-source.ts';
import type { NbdAddress } from '../../nbd/nbd-uri.ts';
import { MachineBusy, ScratchFull, SnapshotLost } from '../kvm-errors.ts';
import type { KvmMachine, LibvirtControl } from '../kvm-machine.ts';
import { type Marks, marksOf } from '../marks.ts';
import { freeBytes, prepareScratch, removeScratch, type ScratchFolder, watchScratch } from '../scratch-images.ts';
import { type BackupDisk, checkpointDocument, exportedBitmap, pullDocument, pushDocument } from './backup-documents.ts';
import { endJob, failureOfLastJob, makeWay, waitUntilOver } from './backup-job.ts';
import { captureDefinition } from './capture-definition.ts';
import { type Checkpoint, listCheckpoints, removeCheckpoint } from './checkpoints.ts';
import { checkpointOf, type DiskTracking, identifyImage, trackDisk } from './disk-tracking.ts';
import { chooseDisks, type Domain, describeDomain, type LibvirtDisk, runStateOf, sizesOf } from './domain.ts';
import { LibvirtTimedOut, LibvirtUnreachable, MachineNotRunning } from './libvirt-errors.ts';
import { type LibvirtPlace, placeOf } from './libvirt-place.ts';
import { openPushedDisk, pushedChangesBytesMax } from './pushed-disk.ts';
import { SnapshotHealth } from './snapshot-health.ts';
import { forwardSocket } from './ssh-forward.ts';
import { takePoint } from './take-point.ts';
import { findDomain, openVirsh, type Virsh } from './virsh.ts';

/**
 * A snapshot of all disks at one instant, by libvirt's backup job. Mostly an NBD server inside QEMU shows the disks as they were (pull);
 * where a disk has an iothread that would crash QEMU, which copies them to the scratch folder instead (push).
 */

const pushTimeoutMs = 24 * 60 * 60 * 1000;
/** Linux: sun_path holds 108 bytes, the final NUL included. */
const socketPathBytesMax = 107;
/** A row of runs that were killed leaves one each. */
const checkpointsMax = 8;

interface TrackedDisk {
  readonly disk: LibvirtDisk;
  readonly tracking: DiskTracking;
}

interface Site {
  readonly virsh: Virsh;
  readonly machine: KvmMachine;
  readonly domain: Domain;
  readonly place: LibvirtPlace;
  readonly marks: Marks;
  readonly scratch: ScratchFolder;
  /** Where QEMU may make files. */
  readonly folder: string;
}

export async function measureByLibvirt(
  machine: KvmMachine,
  control: LibvirtControl,
  signal: AbortSignal,
): Promise<Machine['disks']> {
  const virsh = openVirsh(control.uri);
  const uuid = await findDomain(virsh, machine.name, control, signal);
  const { chosen } = chooseDisks(machine, await describeDomain(virsh, uuid, signal));
  const disks: Machine['disks'][number][] = [];
  for (const { label } of chosen) {
    const { capacityBytes } = await sizesOf(virsh, uuid, label, signal);
    disks.push({ label, capacityBytes });
  }
  return disks;
}

export async function snapshotByLibvirt(
  machine: KvmMachine,
  control: LibvirtControl,
  options: SnapshotOptions,
  signal: AbortSignal,
): Promise<MachineSnapshot> {
  signal.throwIfAborted();
  await using opening = new AsyncDisposableStack();
  const site = await enter(machine, control, signal);
  const { virsh, domain, marks } = site;
  const { chosen, excluded } = chooseDisks(machine, domain);
  refuseBusy(machine.name, chosen);
  await prepareFolder(site);
  opening.defer(() => leaveFolder(site));
  const checkpoints = await tidyCheckpoints(site, options, signal);
  const disks = await trackDisks(site, chosen, checkpoints, options);
  const attachments = await captureDefinition(virsh, machine, domain, site.place.kind === 'here', signal);
  const added = marks.newReferencePoint();
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

/** A libvirt that went away leaves the rest to the next run, which finds it by its names. */
async function quietly(work: Promise<void>): Promise<void> {
  try {
    await work;
  } catch (error) {
    if (!(error instanceof LibvirtUnreachable) && !(error instanceof LibvirtTimedOut)) throw error;
  }
}

interface OpenSnapshot {
  readonly takenAt: Date;
  readonly frozenMs: number | null;
  readonly sources: readonly BlockSource[];
  /** Throws unless all that was read is what the disks held at that instant. */
  check(signal: AbortSignal): Promise<void>;
}

/** Finds the domain, and ends what an earlier run left at it. */
async function enter(machine: KvmMachine, control: LibvirtControl, signal: AbortSignal): Promise<Site> {
  const place = placeOf(control.uri);
  const virsh = openVirsh(control.uri);
  const uuid = await findDomain(virsh, machine.name, control, signal);
  if (!(await runStateOf(virsh, uuid, signal)).runs)
    throw new MachineNotRunning(
      `machine ${machine.name} is shut off, and libvirt takes snapshots of running machines only: start it, or name its images in a source of type image`,
    );
  const marks = marksOf(machine.tag);
  await makeWay(virsh, machine.name, uuid, marks, signal);
  const scratch = {
    folder: machine.scratchFolder,
    prefix: marks.prefix,
    freeBytesMin: machine.scratchFreeBytesMin,
  };
  const domain = await describeDomain(virsh, uuid, signal);
  const folder = place.kind === 'here' ? join(scratch.folder, `${marks.prefix}run`) : scratch.folder;
  return { virsh, machine, domain, place, marks, scratch, folder };
}

function refuseBusy(machineName: string, disks: readonly LibvirtDisk[]): void {
  const busy = disks.find(({ isBusy }) => isBusy);
  if (busy !== undefined)
    throw new MachineBusy(
      `machine ${machineName}: disk ${busy.label} is being copied or merged: run again when that has ended`,
    );
}

/** A folder that QEMU may write in, and nobody else may look into. */
async function prepareFolder({ place, scratch, folder, domain }: Site): Promise<void> {
  if (place.kind !== 'here') return;
  await prepareScratch(scratch);
  await mkdir(folder, { mode: 0o700 });
  await chmod(folder, 0o700);
  if (domain.runsAs === null) return;
  const { uid, gid } = domain.runsAs;
  await chown(folder, uid, gid).catch((cause: unknown) => {
    throw new SourceUnreadable(`${folder} can't be given to user ${uid}, whose QEMU is to write there: run as root`, {
      cause,
    });
  });
}

async function leaveFolder({ place, scratch }: Site): Promise<void> {
  if (place.kind === 'here') await removeScratch(scratch);
}

/** Removes checkpoints of ours that the newest point does not need, where it is known which it needs. */
async function tidyCheckpoints(
  { virsh, domain: { uuid }, marks }: Site,
  { since }: SnapshotOptions,
  signal: AbortSignal,
): Promise<readonly Checkpoint[]> {
  const found = await listCheckpoints(virsh, uuid, marks, signal);
  const needed = since === undefined ? null : new Set([...since.values()].map(checkpointOf));
  const useless = found.filter(({ name }, i) =>
    needed === null ? i > 0 && i < found.length + 2 - checkpointsMax : !needed.has(name),
  );
  for (const { name } of useless) await removeCheckpoint(virsh, uuid, name, signal);
  return found.filter((checkpoint) => !useless.includes(checkpoint));
}

async function trackDisks(
  { place }: Site,
  chosen: readonly LibvirtDisk[],
  checkpoints: readonly Checkpoint[],
  { since }: SnapshotOptions,
): Promise<readonly TrackedDisk[]> {
  return await Promise.all(
    chosen.map(async (disk) => {
      const wanted = since === undefined ? undefined : (since.get(disk.label) ?? null);
      const image = await identifyImage(disk, place.kind === 'here');
      return { disk, tracking: trackDisk(disk, image, checkpoints, wanted) };
    }),
  );
}

async function openByPull(
  site: Site,
  disks: readonly TrackedDisk[],
  added: string,
  { quiesce }: SnapshotOptions,
  opening: AsyncDisposableStack,
  signal: AbortSignal,
): Promise<OpenSnapshot> {
  const { virsh, machine, domain, marks, folder, scratch } = site;
  const socket = join(folder, `${marks.prefix}nbd`);
  if (Buffer.byteLength(socket) > socketPathBytesMax)
    throw new SourceUnreadable(
      `the path of the scratch folder is too long for a socket in it: ${socket}: name a shorter one`,
    );
  const listed = disks.map(({ disk, tracking }) => backupDisk(site, disk, tracking.since));
  const others = othersOf(domain, disks);
  const documents = [pullDocument(socket, listed, others), ...checkpointFor(added, disks, others)];
  opening.defer(() => quietly(endJob(virsh, domain.uuid, marks, new AbortController().signal)));
  const taken = await takePoint(virsh, machine.name, domain, documents, quiesce);
  signal.throwIfAborted();
  const health = opening.use(new SnapshotHealth(virsh, domain.uuid, marks));
  if (site.place.kind === 'here') opening.use(watchScratch(scratch, (full) => health.giveUp(full)));
  const path = site.place.kind === 'here' ? socket : opening.use(await forwardSocket(site.place, socket, signal)).path;
  const sources: BlockSource[] = [];
  for (const tracked of disks) sources.push(health.watching(await openExport(tracked, path, added, opening, signal)));
  return { ...taken, sources, check: (either) => health.check(either) };
}

async function openExport(
  { disk: { label }, tracking }: TrackedDisk,
  socket: string,
  added: string,
  opening: AsyncDisposableStack,
  signal: AbortSignal,
): Promise<BlockSource> {
  const address: NbdAddress = {
    transport: { kind: 'unix', path: socket },
    exportName: label,
    tls: false,
    serverName: 'localhost',
  };
  const disk = opening.use(await NbdDisk.open(address, { contexts: [baseAllocation] }, signal));
  const contexts = [`qemu:dirty-bitmap:${exportedBitmap}`];
  // On a connection of its own: whoever asks for both has QEMU look up the allocation of the whole disk.
  const dirtyDisk = tracking.since === null ? disk : opening.use(await NbdDisk.open(address, { contexts }, signal));
  return nbdBlockSource({
    label,
    disk,
    dirtyDisk,
    referencePoint: tracking.referencePoint(added),
    bitmapSince(since) {
      tracking.requireSince(since);
      return exportedBitmap;
    },
  });
}

async function openByPush(
  site: Site,
  disks: readonly TrackedDisk[],
  added: string,
  { quiesce }: SnapshotOptions,
  opening: AsyncDisposableStack,
  signal: AbortSignal,
): Promise<OpenSnapshot> {
  const { virsh, machine, domain, marks, scratch } = site;
  if (site.place.kind !== 'here')
    throw new SourceUnreadable(
      `machine ${machine.name} has a disk with an iothread, which QEMU copies to its own host: run the agent there`,
    );
  const pushed = await planPush(site, disks, signal);
  const others = othersOf(domain, disks);
  const listed = pushed.map(({ disk, since }) => backupDisk(site, disk, since));
  const documents = [pushDocument(listed, others), ...checkpointFor(added, disks, others)];
  opening.defer(() => quietly(endJob(virsh, domain.uuid, marks, new AbortController().signal)));
  const taken = await takePoint(virsh, machine.name, domain, documents, quiesce);
  {
    await using health = new SnapshotHealth(virsh, domain.uuid, marks);
    using _watching = watchScratch(scratch, (full) => health.giveUp(full));
    await waitUntilOver(virsh, domain.uuid, marks, signal, pushTimeoutMs);
    if (health.failure !== null) throw health.failure;
  }
  const failure = await failureOfLastJob(virsh, domain.uuid, signal);
  if (failure !== null)
    throw new SnapshotLost(`machine ${machine.name}: QEMU did not finish the copy of its disks: ${failure}`);
  const sources: BlockSource[] = [];
  for (const { disk, tracking, since } of pushed) {
    const { image } = backupDisk(site, disk, since);
    const { label } = disk;
    const source = {
      label,
      image,
      since,
      referencePoint: tracking.referencePoint(added),
      requireSince: (asked: Uint8Array) => tracking.requireSince(asked),
    };
    sources.push(await openPushedDisk(source, opening, signal));
  }
  // The copies are whole, and nobody changes them any more.
  return { ...taken, sources, check: async (either) => either.throwIfAborted() };
}

/** Throws ScratchFull where the copies would not fit. */
async function planPush(
  { virsh, domain: { uuid }, scratch, marks }: Site,
  disks: readonly TrackedDisk[],
  signal: AbortSignal,
) {
  const checkpoints = await listCheckpoints(virsh, uuid, marks, signal);
  let neededBytes = 0;
  const planned: (TrackedDisk & { readonly since: string | null })[] = [];
  for (const { disk, tracking } of disks) {
    const { capacityBytes, allocatedBytes } = await sizesOf(virsh, uuid, disk.label, signal);
    const since = capacityBytes > pushedChangesBytesMax ? null : tracking.since;
    const changed = checkpoints.find(({ name }) => name === since)?.dirtyBytes.get(disk.label);
    neededBytes += changed ?? allocatedBytes;
    planned.push({ disk, tracking, since });
  }
  await prepareRoom(scratch, neededBytes);
  return planned;
}

async function prepareRoom(scratch: ScratchFolder, neededBytes: number): Promise<void> {
  const free = await freeBytes(scratch.folder);
  if (free - neededBytes >= scratch.freeBytesMin) return;
  throw new ScratchFull(
    `the scratch folder ${scratch.folder} has ${free} bytes free, and the copy of the disks needs up to ${neededBytes} besides scratchFreeMiBMin: make room, or name another folder`,
  );
}

function backupDisk({ folder, marks }: Site, { label }: LibvirtDisk, since: string | null): BackupDisk {
  return { label, image: join(folder, `${marks.prefix}${label}.qcow2`), since };
}

function othersOf({ disks }: Domain, chosen: readonly TrackedDisk[]): readonly string[] {
  return disks.map(({ label }) => label).filter((label) => chosen.every(({ disk }) => disk.label !== label));
}

/** None where no disk can keep a bitmap. */
function checkpointFor(name: string, disks: readonly TrackedDisk[], others: readonly string[]): readonly string[] {
  const labels = (tracks: boolean) =>
    disks.filter(({ disk }) => disk.tracksChanges === tracks).map(({ disk }) => disk.label);
  const tracked = labels(true);
  return tracked.length === 0 ? [] : [checkpointDocument(name, tracked, [...labels(false), ...others])];
}

/** Which checkpoints a run made useless, found out by what it asked. */
class CheckpointKeeper {
  readonly #site: Site;
  readonly #older: readonly Checkpoint[];
  readonly #needed = new Set<string | null>();

  constructor(site: Site, older: readonly Checkpoint[], added: string) {
    this.#site = site;
    this.#older = older;
    this.#needed.add(added);
  }

  noting(source: BlockSource): BlockSource {
    return {
      ...source,
      changedExtents: (since, signal) => {
        if (since !== null) this.#needed.add(checkpointOf(since));
        return source.changedExtents(since, signal);
      },
    };
  }

  /** The older one goes only when a later snapshot was asked by a newer one. */
  async leave(): Promise<void> {
    if (this.#needed.size === 1) return;
    const { virsh, domain } = this.#site;
    for (const { name } of this.#older)
      if (!this.#needed.has(name)) await removeCheckpoint(virsh, domain.uuid, name, new AbortController().signal);
  }
}
