import { randomBytes } from 'node:crypto';
import { formatBytes } from '../../agent/quantities.ts';
import { type StoredObject, segmentsOf } from '../bucket-folder.ts';
import { claim } from '../claim.ts';
import { listedPoints, madeRepository, type RunOfMachine } from '../failkit-process.ts';
import { killDuringUpload } from '../kill-during-upload.ts';
import type { Screen } from '../screen.ts';
import { atSite, machineName, makeSite, protect, type Site, sha256Of, slowUplinkMbitPerSecond } from '../site.ts';

/** A recovery point of the story, and the disk as it was then. */
export interface TakenPoint {
  /** Why it was taken, in a few words. */
  readonly why: string;
  readonly run: RunOfMachine;
  readonly sha256: string;
}

const noiseBytes = 2 ** 20;

export async function prepareDisk(folder: string, screen: Screen, signal: AbortSignal): Promise<Site> {
  screen.chapter('A disk as real ones are');
  const known = { text: `ledger line ${randomBytes(12).toString('hex')}`, noise: randomBytes(noiseBytes) };
  const site = await screen.during('filling a disk image', makeSite(folder, known, screen, signal));
  screen.held(site.disk.description);
  return site;
}

export async function initialise(site: Site): Promise<void> {
  site.screen.chapter('The bucket, the keys and the recovery kit: failkit init');
  const { rootFingerprint, kit } = await atSite(site, ['init', '--kit', '../kit'], madeRepository);
  claim(kit === '../kit', 'the kit is where it was asked for');
  site.screen.held('the store refuses to overwrite, and the recovery key opens what it should');
  site.screen.aside(`root key ${rootFingerprint}`);
}

export async function seed(site: Site): Promise<TakenPoint> {
  const { screen } = site;
  screen.chapter('The first full copy: failkit seed');
  const sha256 = await sha256Of(site.disk.path, site.signal);
  const run = await protect(site, 'seed');
  claim(run.changedBytes < run.readBytes, 'free space is not sent');
  claim(run.uploadedBytes < run.changedBytes, 'what is sent is smaller than what was read');
  const { readBytes, changedBytes, uploadedBytes } = run;
  screen.held(
    `point ${run.point}: ${formatBytes(readBytes)} read, ${formatBytes(changedBytes)} in use, ${formatBytes(uploadedBytes)} sent`,
  );
  return { why: 'seed', run, sha256 };
}

export async function changeAndSync(site: Site): Promise<TakenPoint> {
  const { screen } = site;
  screen.chapter('A day of work: failkit sync');
  const changed = await screen.during('changing files in the image', site.disk.changeHereAndThere(site.signal));
  screen.aside(`${changed.rewritten} files all over the disk were rewritten, ${changed.removed} removed.`);
  const sha256 = await sha256Of(site.disk.path, site.signal);
  const run = await protect(site, 'sync');
  claim(run.changedBytes > 0 && run.changedBytes < run.readBytes / 4, 'only what changed is sent');
  screen.held(
    `point ${run.point}: ${formatBytes(run.changedBytes)} in changed blocks, ${formatBytes(run.uploadedBytes)} sent`,
  );
  return { why: `${changed.rewritten + changed.removed} files changed`, run, sha256 };
}

export interface InterruptedPoint extends TakenPoint {
  /** What the killed sync had stored. */
  readonly storedBefore: readonly StoredObject[];
}

export async function releaseAndKill(site: Site, before: readonly TakenPoint[]): Promise<InterruptedPoint> {
  const { screen } = site;
  screen.chapter('A release is installed, and the sync is killed: kill -9');
  const { bytes } = await screen.during('installing a release', site.disk.installRelease(site.signal));
  const sha256 = await sha256Of(site.disk.path, site.signal);
  screen.aside(`A program of ${formatBytes(bytes)} is new; the uplink has ${slowUplinkMbitPerSecond} Mbit/s.`);
  const storedBefore = await screen.during('failkit sync, until it is killed', killDuringUpload(site));
  const storedBytes = storedBefore.reduce((sum, object) => sum + object.bytes, 0);
  screen.held(`killed when it had stored ${storedBefore.length} segments, ${formatBytes(storedBytes)}`);
  await claimPoints(site, before, 'an unfinished sync leaves no recovery point behind');
  screen.held('the bucket lists the same recovery points as before: none is half made');
  const run = await goOn(site, storedBefore, bytes);
  return { why: 'killed, went on', run, sha256, storedBefore };
}

/** The next sync adopts what is there: less than the release is sent, and nothing is stored twice. */
async function goOn(site: Site, storedBefore: readonly StoredObject[], releaseBytes: number): Promise<RunOfMachine> {
  const run = await protect(site, 'sync');
  claim(run.adopted, 'the next sync goes on with what the killed one had stored');
  claim(
    run.changedBytes < releaseBytes,
    `${run.changedBytes} of ${releaseBytes} bytes are sent: less than the release`,
  );
  const stored = new Map(segmentsOf(site.bucket).map((object) => [object.name, object.bytes]));
  claim(
    storedBefore.every(({ name, bytes }) => stored.get(name) === bytes),
    'what was stored is still there as it was',
  );
  const adoptedBytes = releaseBytes - run.changedBytes;
  site.screen.held(
    `point ${run.point}: the next sync adopted ${formatBytes(adoptedBytes)} of the program and sent the rest`,
  );
  return run;
}

async function claimPoints(site: Site, expected: readonly TakenPoint[], what: string): Promise<void> {
  const { machines } = await atSite(site, ['points'], listedPoints);
  const [{ name, points }] = machines;
  const wanted = expected.map(({ run }) => run.point).join();
  claim(name === machineName && points.map(({ point }) => point).join() === wanted, what);
}
