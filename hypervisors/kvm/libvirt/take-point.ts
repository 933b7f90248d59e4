import { setTimeout as sleep } from 'node:timers/promises';
import { QuiesceUnavailable } from '../../errors.ts';
import type { SnapshotOptions } from '../../hypervisor.ts';
import { GuestStillFrozen } from '../guest-agent.ts';
import type { Domain } from './domain.ts';
import { LibvirtRefused, LibvirtTimedOut } from './libvirt-errors.ts';
import type { LibvirtSite } from './libvirt-site.ts';
import { type Virsh, withFiles } from './virsh.ts';
import { quoted } from './virsh-shell.ts';

/** The instant of the snapshot, inside a frozen guest where that can be had. */

const thawAttemptsMax = 5;
const thawPauseMs = 500;

export interface Taken {
  readonly takenAt: Date;
  /** At most so long: from before libvirt was asked to freeze until it said that the guest was thawed. */
  readonly frozenMs: number | null;
}

/** `documents`: for `backup-begin`. The guest is thawed whatever happens, even when this process is killed meanwhile. */
export async function takePoint(
  { virsh, machine, domain, place }: LibvirtSite,
  documents: readonly string[],
  quiesce: SnapshotOptions['quiesce'],
): Promise<Taken> {
  return await withFiles(documents, async (paths) => {
    // Here the images were made before.
    const options = place.kind === 'here' ? ['--reuse-external'] : [];
    const begin = ['backup-begin', domain.uuid, ...paths, ...options];
    const freezable = quiesce !== 'off' && domain.guestAgent === 'connected';
    if (quiesce === 'require' && !freezable) throw unfreezable(machine.name, guestAgentLacks(domain));
    if (!freezable) return await takeRunning(virsh, begin);
    const frozen = await takeFrozen(virsh, domain.uuid, begin);
    if ('taken' in frozen) return frozen.taken;
    if (quiesce === 'require') throw unfreezable(machine.name, frozen.why);
    return frozen.point ?? (await takeRunning(virsh, begin));
  });
}

async function takeRunning(virsh: Virsh, begin: readonly string[]): Promise<Taken> {
  const takenAt = new Date();
  // Not to be given up half way: what has begun has to be known.
  await virsh.run(begin, new AbortController().signal);
  return { takenAt, frozenMs: null };
}

/** One process for all three commands, for each of its own would take longer than the snapshot itself. */
async function takeFrozen(
  virsh: Virsh,
  uuid: string,
  begin: readonly string[],
): Promise<{ readonly taken: Taken } | { readonly why: string; readonly point: Taken | null }> {
  const takenAt = new Date();
  const before = performance.now();
  const command = begin.map((word, i) => (i === 0 ? word : quoted(word))).join(' ');
  const all = virsh.runAll([`domfsfreeze ${quoted(uuid)}`, command, `domfsthaw ${quoted(uuid)}`]);
  const outcome = await all.catch(async (error: unknown) => {
    if (!(error instanceof LibvirtTimedOut)) throw error;
    await thaw(virsh, uuid);
    return error;
  });
  if (outcome instanceof LibvirtTimedOut) return { why: outcome.message, point: null };
  const [froze = '', begun = '', thawed = ''] = outcome.printed;
  const frozenMs = performance.now() - before;
  const wasFrozen = froze !== '' && thawed === '' ? await thaw(virsh, uuid) : fileSystemsIn(thawed) > 0;
  if (begun === '') throw new LibvirtRefused(`libvirt at ${virsh.uri} refused the snapshot: ${outcome.errors}`);
  if (fileSystemsIn(froze) > 0 && wasFrozen) return { taken: { takenAt, frozenMs } };
  return { why: whyNotFrozen(froze, outcome.errors), point: { takenAt, frozenMs: null } };
}

function whyNotFrozen(froze: string, errors: string): string {
  if (froze === '') return errors;
  return fileSystemsIn(froze) === 0
    ? 'the guest has no file system to freeze'
    : 'it did not stay frozen until the snapshot was taken';
}

/** `Froze 2 filesystem(s)`: the one thing that libvirt tells of it. */
function fileSystemsIn(printed: string): number {
  return Number(/\d+/.exec(printed)?.[0] ?? 0);
}

/** Takes no signal: whatever became of the run, the guest must go on. Returns whether it was frozen until now. */
async function thaw(virsh: Virsh, uuid: string): Promise<boolean> {
  const never = new AbortController().signal;
  for (let attempt = 1; attempt <= thawAttemptsMax; attempt++) {
    const printed = await virsh.ask(['domfsthaw', '--domain', uuid], never);
    if (printed !== null) return fileSystemsIn(printed) > 0;
    await sleep(thawPauseMs);
  }
  throw new GuestStillFrozen(
    `libvirt froze the guest of domain ${uuid} and does not thaw it: run virsh domfsthaw ${uuid}, or reset the machine`,
  );
}

function guestAgentLacks({ guestAgent }: Domain): string {
  return guestAgent === 'missing'
    ? 'the domain has no channel for the guest agent (org.qemu.guest_agent.0)'
    : 'the guest agent is not connected: see whether qemu-guest-agent runs in the guest';
}

function unfreezable(machineName: string, why: string): QuiesceUnavailable {
  return new QuiesceUnavailable(`machine ${machineName} can't be frozen: ${why}`);
}
