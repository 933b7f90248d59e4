import * as z from 'zod';
import { disksWithThreads, sharedDisks } from './device-properties.ts';
import { askGuest, GuestAgentFailed } from './guest-agent.ts';
import type { KvmMachine, QmpControl } from './kvm-machine.ts';
import { fine, hopeless, type MachineFinding, worrying } from './machine-finding.ts';
import { type Marks, marksOf } from './marks.ts';
import { listDisks, parse, type QemuDisk } from './qemu-disks.ts';
import { QmpClient } from './qmp-client.ts';
import { listJobs } from './remove-marks.ts';
import { freeBytes } from './scratch-images.ts';

/** What stands in the way of a snapshot by QEMU's monitor, or will. Asks only, and leaves the machine as it is. */

const version = z.object({ qemu: z.object({ major: z.int(), minor: z.int(), micro: z.int() }) });
const oldestTried = 7;
const pingTimeoutMs = 5_000;

/** Throws where the monitor can't be asked at all. */
export async function examineQmp(
  machine: KvmMachine,
  control: QmpControl,
  signal: AbortSignal,
): Promise<readonly MachineFinding[]> {
  const marks = marksOf(machine.tag);
  await using qmp = await QmpClient.open(control.socket, signal);
  const disks = await listDisks(qmp, signal);
  const threads = await disksWithThreads(qmp, disks, signal);
  const shared = await sharedDisks(qmp, disks, signal);
  return [
    await examineVersion(qmp, signal),
    ...disks.flatMap((disk) => examineDisk(disk, threads.has(disk.label), marks)),
    ...[...shared].map((label) =>
      worrying(label, 'other machines may write it, too (share-rw): it is left out', 'name it under exclude'),
    ),
    await examineScratch(machine),
    ...(await examineJobs(qmp, marks, signal)),
    await examineAgent(control, signal),
  ];
}

async function examineVersion(qmp: QmpClient, signal: AbortSignal): Promise<MachineFinding> {
  const { major, minor, micro } = parse(version, await qmp.run('query-version', {}, signal), 'query-version').qemu;
  const what = `QEMU ${major}.${minor}.${micro}`;
  return major < oldestTried ? worrying(null, `${what} was never tried`, 'use QEMU 7.2 or newer') : fine(what);
}

function examineDisk(disk: QemuDisk, hasThread: boolean, marks: Marks): readonly MachineFinding[] {
  const { label, format, canPersist, hasSnapshots, bitmaps, readOnly } = disk;
  const findings: MachineFinding[] = [];
  if (readOnly) findings.push(worrying(label, 'the guest may only read it: it is left out', 'name it under exclude'));
  if (!canPersist)
    findings.push(
      worrying(
        label,
        `its image (${format}) keeps no bitmap: it is read in full after each start of QEMU`,
        format === 'qcow2' ? 'run: qemu-img amend -o compat=1.1, while it is off' : 'convert it to qcow2',
      ),
    );
  if (hasSnapshots)
    findings.push(
      worrying(label, 'it has internal snapshots: each run reads all of it', 'remove them: qemu-img snapshot -d'),
    );
  const broken = bitmaps.filter(({ name, inconsistent }) => inconsistent && marks.isReferencePoint(name));
  if (broken.length > 0)
    findings.push(
      worrying(
        label,
        'its bitmap is inconsistent: QEMU did not end in order',
        'nothing: the next run reads it in full',
      ),
    );
  if (!hasThread && !readOnly && !disk.stopsWhenFull)
    findings.push(
      worrying(
        label,
        'a scratch folder without room would be an error of this disk to the guest, instead of a pause',
        'start QEMU with werror=enospc for it, which is the default',
      ),
    );
  if (hasThread) findings.push({ ...fine('it has an iothread: QEMU pushes it'), disk: label });
  return findings;
}

async function examineScratch({ scratchFolder, scratchFreeBytesMin }: KvmMachine): Promise<MachineFinding> {
  try {
    const free = await freeBytes(scratchFolder);
    if (free >= scratchFreeBytesMin) return fine(`${free} bytes free in ${scratchFolder}`);
    return hopeless(`the scratch folder ${scratchFolder} has ${free} bytes free`, 'make room, or name another folder');
  } catch {
    // A run makes it, or says why it can't.
    return worrying(null, `the scratch folder ${scratchFolder} is not there`, 'make it, or let the first run do so');
  }
}

async function examineJobs(qmp: QmpClient, marks: Marks, signal: AbortSignal): Promise<readonly MachineFinding[]> {
  const others = (await listJobs(qmp, signal)).filter((id) => !marks.isOurs(id));
  if (others.length === 0) return [];
  return [worrying(null, `somebody else's jobs work on its disks: ${others.join(', ')}`, 'let them end first')];
}

async function examineAgent({ guestAgentSocket }: QmpControl, signal: AbortSignal): Promise<MachineFinding> {
  if (guestAgentSocket === null)
    return worrying(null, 'points are crash-consistent', 'give guestAgent, and run qemu-guest-agent in the guest');
  try {
    await askGuest(guestAgentSocket, 'guest-ping', pingTimeoutMs, signal);
    return fine('the guest agent answers');
  } catch (error) {
    if (!(error instanceof GuestAgentFailed)) throw error;
    return worrying(null, `${error.message}: points are crash-consistent`, 'run qemu-guest-agent in the guest');
  }
}
