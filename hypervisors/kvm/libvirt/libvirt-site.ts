import { randomBytes } from 'node:crypto';
import { chmod, chown, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { allAtOnce } from '../../all-at-once.ts';
import { SourceUnreadable } from '../../errors.ts';
import type { KvmMachine, LibvirtControl } from '../kvm-machine.ts';
import { type Marks, marksOf } from '../marks.ts';
import { prepareScratch, removeScratch, type ScratchFolder } from '../scratch-images.ts';
import { SnapshotGuard } from '../snapshot-guard.ts';
import { endJobIn, makeWay } from './backup-job.ts';
import { type Domain, describeDomain, runStateOf } from './domain.ts';
import { LibvirtTimedOut, LibvirtUnreachable, MachineNotRunning } from './libvirt-errors.ts';
import { type LibvirtPlace, placeOf } from './libvirt-place.ts';
import { findDomain, type Virsh } from './virsh.ts';

/** One domain, and what a run needs to work at it. */
export interface LibvirtSite {
  readonly virsh: Virsh;
  readonly machine: KvmMachine;
  readonly domain: Domain;
  readonly place: LibvirtPlace;
  readonly marks: Marks;
  readonly scratch: ScratchFolder;
  /** Where QEMU may make files. */
  readonly folder: string;
}

/** Finds the domain, and ends what an earlier run left at it. */
export async function enterSite(
  machine: KvmMachine,
  control: LibvirtControl,
  virsh: Virsh,
  signal: AbortSignal,
): Promise<LibvirtSite> {
  const place = placeOf(control.uri);
  const uuid = await findDomain(virsh, machine.name, control, signal);
  const marks = marksOf(machine.tag);
  const [{ runs }, endedOurs, described] = await allAtOnce([
    runStateOf(virsh, uuid, signal),
    makeWay(virsh, machine.name, uuid, marks, signal),
    describeDomain(virsh, uuid, signal),
  ]);
  if (!runs)
    throw new MachineNotRunning(
      `machine ${machine.name} is shut off, and libvirt takes snapshots of running machines only: start it, or name its images in a source of type image`,
    );
  const domain = endedOurs ? await describeDomain(virsh, uuid, signal) : described;
  const scratch = {
    folder: machine.scratchFolder,
    prefix: marks.prefix,
    freeBytesMin: machine.scratchFreeBytesMin,
  };
  const folder =
    place.kind === 'here'
      ? join(scratch.folder, `${marks.prefix}run-${randomBytes(3).toString('hex')}`)
      : scratch.folder;
  return { virsh, machine, domain, place, marks, scratch, folder };
}

/** A folder that QEMU may write in, and nobody else may look into. */
export async function prepareFolder(site: LibvirtSite): Promise<void> {
  const { place, scratch, folder } = site;
  if (place.kind !== 'here') return;
  await prepareScratch(scratch);
  await mkdir(folder, { mode: 0o700 });
  await chmod(folder, 0o700);
  await giveToQemu(site, folder);
}

export async function leaveFolder({ place, scratch }: LibvirtSite): Promise<void> {
  if (place.kind === 'here') await removeScratch(scratch);
}

/** Gives a file or folder to the user that QEMU runs as. */
export async function giveToQemu({ domain }: LibvirtSite, path: string): Promise<void> {
  if (domain.runsAs === null) return;
  const { uid, gid } = domain.runsAs;
  await chown(path, uid, gid).catch((cause: unknown) => {
    throw new SourceUnreadable(`${path} can't be given to user ${uid}, whose QEMU is to write there: run as root`, {
      cause,
    });
  });
}

/** The job that is about to begin ends with the run, also where that is killed: then a second process sees to it, on this host at least. */
export function endJobAtLast(site: LibvirtSite, opening: AsyncDisposableStack): void {
  const { virsh, machine, domain, marks, place, folder } = site;
  const guarded = { kind: 'libvirt', uri: virsh.uri, uuid: domain.uuid, tag: machine.tag, folder } as const;
  const guard = place.kind === 'here' ? opening.use(new SnapshotGuard(guarded)) : null;
  const end = async (): Promise<void> => {
    await endJobIn(folder, virsh, domain.uuid, marks, new AbortController().signal);
    // Before the guard is let go: were we killed in between, nobody would remove it until the next run.
    await leaveFolder(site);
    guard?.done();
  };
  opening.defer(() => quietly(end()));
}

/** A libvirt that went away leaves the rest to the next run, which finds it by its names. */
export async function quietly(work: Promise<void>): Promise<void> {
  try {
    await work;
  } catch (error) {
    if (!(error instanceof LibvirtUnreachable) && !(error instanceof LibvirtTimedOut)) throw error;
  }
}
