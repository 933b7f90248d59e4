import { basename, dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { MachineBusy } from '../kvm-errors.ts';
import type { Marks } from '../marks.ts';
import { runStateOf } from './domain.ts';
import { LibvirtRefused, LibvirtTimedOut } from './libvirt-errors.ts';
import type { Virsh } from './virsh.ts';
import { attributeOf, childOf, childrenOf, parseXml } from './xml.ts';

/** libvirt's backup job: at most one at a domain. */

const endTimeoutMs = 60_000;
const pollFirstMs = 50;
const pollMaxMs = 1_000;
const otherJobKinds: Readonly<Record<string, string>> = {
  '2': 'is being saved',
  '3': 'is being restored',
  '4': 'is being migrated to here',
  '5': 'is being migrated away',
  '6': 'has a snapshot taken of it',
  '7': 'is going back to a snapshot',
  '8': 'is being dumped',
  '10': 'has a snapshot removed',
};
const backupOperation = '9';

/** The socket and images of the job that there is; null where there is none. */
export async function findJob(virsh: Virsh, uuid: string, signal: AbortSignal): Promise<readonly string[] | null> {
  // The next question is refused where there is none, and of a refusal it takes one more to know what it means.
  return (await operationOf(virsh, uuid, signal)) === backupOperation ? await pathsOfJob(virsh, uuid, signal) : null;
}

async function pathsOfJob(virsh: Virsh, uuid: string, signal: AbortSignal): Promise<readonly string[] | null> {
  const text = await virsh.ask(['backup-dumpxml', '--domain', uuid], signal);
  if (text === null) return null;
  const root = parseXml(text, `the backup job of domain ${uuid}`, 'domainbackup');
  const images = childrenOf(childOf(root, 'disks'), 'disk').map((disk) =>
    attributeOf(childOf(disk, 'scratch') ?? childOf(disk, 'target'), 'file'),
  );
  const socket = attributeOf(childOf(root, 'server'), 'socket');
  return [socket, ...images].filter((path) => path !== null);
}

/** Whether the job that there is keeps its files where only we put them. */
export function isOurJob(paths: readonly string[], marks: Marks): boolean {
  return paths.length > 0 && paths.every((path) => path.split('/').some((part) => marks.isOurs(part)));
}

/** Whether it is that of the run whose folder this is, and not of another agent that came since. */
export function isJobIn(paths: readonly string[] | null, folder: string): boolean {
  return paths?.some((path) => dirname(path) === folder) === true;
}

/** The same as `endJob`, of the job that keeps its files in this folder. */
export async function endJobIn(
  folder: string,
  virsh: Virsh,
  uuid: string,
  marks: Marks,
  signal: AbortSignal,
): Promise<void> {
  const job = await findJob(virsh, uuid, signal);
  if (job !== null && isJobIn(job, folder)) await endJob(job, virsh, uuid, marks, signal);
}

/** Ends what a killed run of ours left behind, and says whether there was anything. Throws MachineBusy where somebody else is at the domain. */
export async function makeWay(
  virsh: Virsh,
  machineName: string,
  uuid: string,
  marks: Marks,
  signal: AbortSignal,
): Promise<boolean> {
  const operation = await operationOf(virsh, uuid, signal);
  const other = otherJobKinds[operation ?? ''];
  if (other !== undefined) throw new MachineBusy(`machine ${machineName} ${other}: run again when that has ended`);
  const job = operation === backupOperation ? await pathsOfJob(virsh, uuid, signal) : null;
  if (job !== null && !isOurJob(job, marks))
    throw new MachineBusy(
      `machine ${machineName}: another program reads it just now (${basename(job[0] ?? 'a backup job')}): ` +
        'let it end, or end it with virsh domjobabort',
    );
  if (job !== null) await endJob(job, virsh, uuid, marks, signal);
  return job !== null;
}

/** Returns when libvirt has let go of everything. The guest goes on, even one that stands still for want of room. */
async function endJob(
  job: readonly string[],
  virsh: Virsh,
  uuid: string,
  marks: Marks,
  signal: AbortSignal,
): Promise<void> {
  if (!isOurJob(job, marks)) return;
  await virsh.ask(['domjobabort', '--domain', uuid], signal);
  await waitUntilOver(virsh, uuid, marks, signal, endTimeoutMs);
  const { stoppedByIoError } = await runStateOf(virsh, uuid, signal);
  if (stoppedByIoError) await virsh.ask(['resume', '--domain', uuid], signal);
}

/** Returns once no job of ours is left. */
export async function waitUntilOver(
  virsh: Virsh,
  uuid: string,
  marks: Marks,
  signal: AbortSignal,
  timeoutMs: number,
): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  for (let pauseMs = pollFirstMs; ; pauseMs = Math.min(pollMaxMs, pauseMs * 1.5)) {
    const job = await findJob(virsh, uuid, signal);
    if (job === null || !isOurJob(job, marks)) return;
    if (performance.now() > deadline)
      throw new LibvirtTimedOut(`domain ${uuid}: its job did not end within ${timeoutMs / 1000} s`);
    await sleep(pauseMs, undefined, { signal });
  }
}

/** How the last job ended: null when well. */
export async function failureOfLastJob(virsh: Virsh, uuid: string, signal: AbortSignal): Promise<string | null> {
  const stats = await jobStats(virsh, uuid, ['--completed'], signal);
  if (stats?.get('operation') !== backupOperation) return 'libvirt does not know how it ended';
  const reason = stats.get('errmsg') ?? null;
  return stats.get('success') === '1' && reason === null ? null : (reason ?? 'libvirt gives no reason');
}

/** Of the job that there is, of any kind; null where there is none. A domain that runs and does not tell may have one. */
async function operationOf(virsh: Virsh, uuid: string, signal: AbortSignal): Promise<string | null> {
  const stats = await jobStats(virsh, uuid, [], signal);
  if (stats === null && (await isRunning(virsh, uuid, signal)))
    throw new LibvirtTimedOut(`domain ${uuid} runs, and libvirt does not tell what job it has: is its QEMU stuck?`);
  return stats?.get('operation') ?? null;
}

async function isRunning(virsh: Virsh, uuid: string, signal: AbortSignal): Promise<boolean> {
  try {
    return (await runStateOf(virsh, uuid, signal)).runs;
  } catch (error) {
    if (error instanceof LibvirtRefused) return false; // there is no such domain any more
    throw error;
  }
}

/** One `key: value` a line; the keys are those of libvirt's programming interface. Null where it refuses to tell. */
async function jobStats(virsh: Virsh, uuid: string, options: readonly string[], signal: AbortSignal) {
  const text = await virsh.ask(['domjobinfo', '--domain', uuid, '--rawstats', ...options], signal);
  if (text === null) return null;
  return new Map(
    text.split('\n').flatMap((line): [string, string][] => {
      const [key, ...value] = line.split(':');
      return value.length === 0 || key === undefined ? [] : [[key.trim(), value.join(':').trim()]];
    }),
  );
}
