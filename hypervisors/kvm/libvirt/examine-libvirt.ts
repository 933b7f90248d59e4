import { stat } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { readImageInfo } from '../../image/image-info.ts';
import { QemuToolFailed } from '../../nbd/qemu-nbd.ts';
import type { KvmMachine, LibvirtControl } from '../kvm-machine.ts';
import { fine, hopeless, type MachineFinding, worrying } from '../machine-finding.ts';
import { marksOf } from '../marks.ts';
import { freeBytes } from '../scratch-images.ts';
import { findJob, isOurJob } from './backup-job.ts';
import { isReadable } from './capture-definition.ts';
import { listCheckpoints } from './checkpoints.ts';
import { chooseDisks, type Domain, describeDomain, type LibvirtDisk, runStateOf } from './domain.ts';
import { placeOf } from './libvirt-place.ts';
import { findDomain, openVirsh, type Virsh } from './virsh.ts';

/** What stands in the way of a snapshot, or will. Asks only, and leaves the machine as it is. */

interface Examined {
  readonly virsh: Virsh;
  readonly machine: KvmMachine;
  readonly domain: Domain;
  readonly isLocal: boolean;
}

/** Throws where libvirt can't be asked at all, or knows no such domain. */
export async function examineLibvirt(
  machine: KvmMachine,
  control: LibvirtControl,
  signal: AbortSignal,
): Promise<readonly MachineFinding[]> {
  const isLocal = placeOf(control.uri).kind === 'here';
  using virsh = openVirsh(control.uri);
  const uuid = await findDomain(virsh, machine.name, control, signal);
  const versions = await readVersions(virsh, signal);
  if (!(await runStateOf(virsh, uuid, signal)).runs)
    return [versions, hopeless('it is shut off', 'start it: libvirt takes snapshots of running machines only')];
  const domain = await describeDomain(virsh, uuid, signal);
  const examined = { virsh, machine, domain, isLocal };
  return [
    versions,
    ...(await examineDisks(examined, signal)),
    ...(await examineScratch(examined)),
    ...(await examineJobs(examined, signal)),
    ...examineGuestAgent(domain),
    ...(await examineFirmware(examined)),
  ];
}

async function readVersions(virsh: Virsh, signal: AbortSignal): Promise<MachineFinding> {
  // It has no form for programs; the numbers are only shown.
  const text = await virsh.run(['version'], signal);
  const version = (word: string): string => new RegExp(`${word}\\D+(\\d[\\d.]*)`).exec(text)?.[1] ?? 'unknown';
  return fine(`libvirt ${version('Using library: libvirt')}, QEMU ${version('Running hypervisor: QEMU')}`);
}

async function examineDisks(examined: Examined, signal: AbortSignal): Promise<readonly MachineFinding[]> {
  const { virsh, machine, domain, isLocal } = examined;
  const { chosen, excluded } = chooseDisks(machine, domain);
  const checkpoints = await listCheckpoints(virsh, domain.uuid, marksOf(machine.tag), signal);
  const newest = checkpoints.at(-1);
  const findings: MachineFinding[] = excluded.map(({ label, reason }) => ({
    disk: label,
    level: 'warning',
    what: `it is left out: ${reason}`,
    fix: 'replicate it in another way, or name it under exclude, so that nobody is surprised',
  }));
  for (const disk of chosen) {
    findings.push(await examineFormat(disk, isLocal, signal));
    if (disk.hasIothread)
      findings.push(
        worrying(
          disk.label,
          'it has an iothread: QEMU copies what changed to the scratch folder before it is read',
          'see that the scratch folder has room for it, and for the whole of the disks at the first copy',
        ),
      );
    if (disk.isBusy) findings.push(worrying(disk.label, 'it is being copied or merged', 'wait until that has ended'));
    if (newest !== undefined && disk.tracksChanges && !newest.dirtyBytes.has(disk.label))
      findings.push(
        worrying(
          disk.label,
          `its bitmap ${newest.name} is missing or broken`,
          'nothing to do: the next run reads it in full',
        ),
      );
  }
  return findings;
}

async function examineFormat(disk: LibvirtDisk, isLocal: boolean, signal: AbortSignal): Promise<MachineFinding> {
  const { label, format, tracksChanges, path } = disk;
  if (!tracksChanges)
    return worrying(
      label,
      `its image has the format ${format}, which keeps no bitmap: each run reads all of it`,
      'convert it to qcow2 (qemu-img convert -O qcow2), and change the domain',
    );
  if (!isLocal || path === null) return { ...fine('changed blocks are tracked by qcow2 bitmaps'), disk: label };
  try {
    const info = await readImageInfo(path, 'qcow2', signal, { shared: true });
    if (info.compatibility === '0.10')
      return {
        disk: label,
        level: 'failed',
        what: 'its image is qcow2 of version 2, which keeps no bitmap',
        fix: `shut the machine down, and run: qemu-img amend -f qcow2 -o compat=1.1 ${path}`,
      };
    if (info.hasSnapshots)
      return worrying(
        label,
        'it has internal snapshots: going back to one is recorded nowhere',
        'remove them, or resync after each',
      );
  } catch (error) {
    if (!(error instanceof QemuToolFailed)) throw error;
  }
  return { ...fine('changed blocks are tracked by qcow2 bitmaps'), disk: label };
}

async function examineScratch({ machine, isLocal, domain }: Examined): Promise<readonly MachineFinding[]> {
  const { scratchFolder, scratchFreeBytesMin } = machine;
  if (!isLocal)
    return [
      worrying(
        null,
        `the scratch folder ${scratchFolder} is on another host and was not looked at`,
        'run the doctor there',
      ),
    ];
  const info = await stat(scratchFolder).catch(() => null);
  if (info === null) return [fine(`the scratch folder ${scratchFolder} will be made`)];
  if (!info.isDirectory()) return [hopeless(`${scratchFolder} is not a folder`, 'name another scratch folder')];
  const free = await freeBytes(scratchFolder);
  if (free < scratchFreeBytesMin)
    return [
      hopeless(`the scratch folder ${scratchFolder} has ${free} bytes free`, 'make room, or name another folder'),
    ];
  const closed = domain.runsAs === null ? null : await closedTo(domain.runsAs.uid, scratchFolder);
  if (closed !== null) return [hopeless(`QEMU's user can't get through ${closed}`, `run: chmod o+x ${closed}`)];
  return [fine(`the scratch folder ${scratchFolder} has ${free} bytes free`)];
}

/** The first folder on the way, from the inside, that the user can't get through; null where there is none. Groups are not looked at. */
async function closedTo(uid: number, folder: string): Promise<string | null> {
  if (uid === 0) return null;
  for (let path = resolve(folder); ; path = dirname(path)) {
    const info = await stat(path);
    if (info.uid !== uid && (info.mode & 0o001) === 0) return path;
    if (path === dirname(path)) return null;
  }
}

async function examineJobs(
  { virsh, machine, domain }: Examined,
  signal: AbortSignal,
): Promise<readonly MachineFinding[]> {
  const job = await findJob(virsh, domain.uuid, signal);
  if (job === null) return [];
  if (isOurJob(job, marksOf(machine.tag)))
    return [worrying(null, 'a run reads it just now, or was killed', 'nothing to do: the next run cleans up')];
  return [worrying(null, 'another program reads it just now', 'let it end; two at a time are not possible')];
}

function examineGuestAgent({ guestAgent }: Domain): readonly MachineFinding[] {
  if (guestAgent === 'connected') return [fine('the guest agent is connected')];
  const what = guestAgent === 'missing' ? 'it has no channel for the guest agent' : 'the guest agent is not connected';
  return [
    worrying(
      null,
      `${what}: points are crash-consistent`,
      'add the channel org.qemu.guest_agent.0, and install qemu-guest-agent in the guest',
    ),
  ];
}

async function examineFirmware({ domain, isLocal }: Examined): Promise<readonly MachineFinding[]> {
  if (domain.nvram === null || (isLocal && (await isReadable(domain.nvram)))) return [];
  return [
    worrying(
      null,
      `its UEFI variables (${domain.nvram}) can't be read, and are not in its points`,
      'run the agent as root on its host',
    ),
  ];
}
