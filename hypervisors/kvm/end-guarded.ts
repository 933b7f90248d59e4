import { rm } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { QmpUnreachable } from './kvm-errors.ts';
import { endJobIn } from './libvirt/backup-job.ts';
import { openVirsh } from './libvirt/virsh.ts';
import { marksOf } from './marks.ts';
import { QmpClient } from './qmp-client.ts';
import { removeMarks } from './remove-marks.ts';
import { removeScratch } from './scratch-images.ts';
import { type GuardedByLibvirt, type GuardedByMonitor, parseGuarded } from './snapshot-guard.ts';
import { thawLeftFrozen } from './while-frozen.ts';

/** What the next run would do for a snapshot whose agent was killed, done by the guard. */

const attemptsMax = 10;
const pauseMs = 1_000;
const never = new AbortController().signal;

/** `line`: what the agent said is to be guarded. */
export async function endGuarded(line: string): Promise<void> {
  const snapshot = parseGuarded(line);
  if (snapshot === null) return;
  for (let attempt = 1; attempt <= attemptsMax; attempt++) {
    try {
      return snapshot.kind === 'qmp' ? await endByMonitor(snapshot) : await endByLibvirt(snapshot);
    } catch (error) {
      // Whoever has the monitor for so long is the next run, which has cleaned up by now; or the machine ended.
      if (error instanceof QmpUnreachable && attempt > 1) return;
    }
    await sleep(pauseMs);
  }
}

/** Who has the monitor has it alone: a next run that comes meanwhile waits, or was there before us and did the same. */
async function endByMonitor({ monitor, guestAgent, scratch, nbdSocket, tag }: GuardedByMonitor): Promise<void> {
  const marks = marksOf(tag);
  await using qmp = await QmpClient.open(monitor, never);
  await thawLeftFrozen(qmp, marks, guestAgent, never);
  await removeMarks(qmp, marks, nbdSocket, never);
  await removeScratch(scratch);
}

/** libvirt's job is another run's where its files are not in this run's own folder. */
async function endByLibvirt({ uri, uuid, tag, folder }: GuardedByLibvirt): Promise<void> {
  using virsh = openVirsh(uri);
  await endJobIn(folder, virsh, uuid, marksOf(tag), never);
  await rm(folder, { recursive: true, force: true });
}
