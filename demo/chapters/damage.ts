import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { formatBytes } from '../../agent/quantities.ts';
import { exitCodes } from '../../agent/remedy.ts';
import { flipBit, type StoredObject } from '../bucket-folder.ts';
import { claim } from '../claim.ts';
import { failedCommand, verifiedMachine } from '../failkit-process.ts';
import { atSite, diskLabel, machineName, protect, type Site } from '../site.ts';
import type { InterruptedPoint, TakenPoint } from './protect.ts';

/** The bit flips in what the killed sync had stored: only the point that adopted it is hurt. */
export async function damageOneBit(site: Site, whole: readonly TakenPoint[], hurt: InterruptedPoint): Promise<void> {
  const { screen } = site;
  screen.chapter('One bit in the bucket flips: failkit verify');
  // The first one: the last may have been under way when the agent was killed, and then it belongs to no point.
  const [victim] = hurt.storedBefore;
  claim(victim !== undefined, 'the killed sync had stored something');
  const { at, before, after } = flipBit(site.bucket, victim);
  screen.aside(`…${victim.name.slice(-37)}, byte ${at.toLocaleString('en')}: ${hex(before)} became ${hex(after)}`);
  await claimNotRestored(site, victim, hurt);
  await claimFound(site, victim, whole, hurt);
}

async function claimNotRestored(site: Site, victim: StoredObject, hurt: TakenPoint): Promise<void> {
  const point = String(hurt.run.point);
  const args = ['restore', machineName, '--disk', diskLabel, '--point', point, '--to', 'damaged.raw'];
  const { error } = await atSite(site, args, failedCommand, exitCodes.damage);
  claim(error.message.includes(victim.name), `the damaged object is named: ${error.message}`);
  claim(!existsSync(join(site.folder, 'damaged.raw')), 'no damaged disk stands under its final name');
  site.screen.held(`restoring point ${point} fails and names the object: ${error.code}`);
}

async function claimFound(
  site: Site,
  victim: StoredObject,
  whole: readonly TakenPoint[],
  hurt: TakenPoint,
): Promise<void> {
  const { machines } = await atSite(site, ['verify', machineName], verifiedMachine, exitCodes.damage);
  const [found] = machines;
  claim(found.findings.map(({ object }) => object).join() === victim.name, 'verify names that object, and no other');
  claim(found.hurt.join() === String(hurt.run.point), `verify says which point is hurt: ${found.hurt.join()}`);
  claim(found.whole.join() === pointsOf(whole), `verify says which points are whole: ${found.whole.join()}`);
  site.screen.held(`verify names it, too: point ${found.hurt.join()} is hurt, ${found.whole.join(' and ')} are whole`);
}

/** The next sync sends again what the damaged segment held, from the disk, which still has it. */
export async function repair(site: Site, hurt: TakenPoint): Promise<TakenPoint> {
  const { screen } = site;
  screen.chapter('The repair: failkit sync');
  const run = await protect(site, 'sync');
  claim(run.uploadedBytes > 0, 'the damaged blocks are sent again, although the disk did not change');
  claim(run.uploadedBytes < hurt.run.readBytes / 10, 'and not the whole disk');
  const args = ['verify', machineName, '--point', String(run.point)];
  const { machines } = await atSite(site, args, verifiedMachine);
  const [found] = machines;
  claim(found.findings.length === 0 && found.whole.join() === String(run.point), `point ${run.point} is whole`);
  screen.held(`point ${run.point}: ${formatBytes(run.uploadedBytes)} sent again, from the disk`);
  screen.held(`verify read every byte of point ${run.point} (${formatBytes(found.readBytes)}): it is whole`);
  return { why: 'repaired', run, sha256: hurt.sha256 };
}

function pointsOf(taken: readonly TakenPoint[]): string {
  return taken.map(({ run }) => run.point).join();
}

function hex(byte: number): string {
  return `0x${byte.toString(16).padStart(2, '0')}`;
}
