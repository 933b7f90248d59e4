import { cpSync, renameSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { formatBytes, formatSpeed } from '../../agent/quantities.ts';
import { claim } from '../claim.ts';
import { failkit, type RestoredPoint, restoredPoint } from '../failkit-process.ts';
import { diskLabel, machineName, type Site, sha256Of } from '../site.ts';
import type { TakenPoint } from './protect.ts';

/** One point at the site; then the site is gone, and another one is restored on a new machine with the kit alone. */
export async function restoreBoth(site: Site, old: TakenPoint, newest: TakenPoint): Promise<readonly RestoredPoint[]> {
  const { screen } = site;
  screen.chapter('The way back: failkit restore');
  const atHome = await restoreAt(site, site.folder, [], old);
  screen.held(`point ${old.run.point}, by the agent itself: ${speedOf(atHome)}`);
  sayEqual(site, atHome);

  const laptop = loseTheSite(site);
  screen.aside('Now the site is gone: disk, configuration, key file and state. A new');
  screen.aside('machine has the bucket and the recovery kit, and nothing else.');
  const abroad = await restoreAt(site, laptop, ['--config', 'restore.yaml'], newest);
  screen.held(`point ${newest.run.point}, with the recovery kit alone: ${speedOf(abroad)}`);
  sayEqual(site, abroad);
  return [atHome, abroad];
}

interface Checked extends RestoredPoint {
  readonly sha256: string;
  readonly inOrder: string | null;
}

async function restoreAt(site: Site, cwd: string, global: readonly string[], taken: TakenPoint): Promise<Checked> {
  const { screen, signal } = site;
  const point = String(taken.run.point);
  const args = [...global, 'restore', machineName, '--disk', diskLabel, '--point', point, '--to', 'restored.raw'];
  const restoring = failkit(args, restoredPoint, { cwd, signal });
  const restored = await screen.during(`failkit restore ${machineName} --point ${point}`, restoring);
  const path = join(cwd, 'restored.raw');
  const sha256 = await screen.during('comparing', sha256Of(path, signal));
  claim(sha256 === taken.sha256, `point ${point} equals the disk as it was: ${sha256} is not ${taken.sha256}`);
  const inOrder = await site.disk.checkImage(path, signal);
  rmSync(path);
  return { ...restored, sha256, inOrder };
}

function sayEqual({ screen }: Site, { sha256, inOrder }: Checked): void {
  screen.held(`sha256 ${sha256.slice(0, 16)}… is that of the disk then${inOrder === null ? '' : `; ${inOrder}`}`);
}

/** Everything of the site is out of reach; returns the folder of the new machine. */
function loseTheSite(site: Site): string {
  const root = dirname(site.folder);
  renameSync(site.folder, join(root, 'lost'));
  const laptop = join(root, 'new-machine');
  cpSync(site.kit, laptop, { recursive: true });
  return laptop;
}

function speedOf({ writtenBytes, durationMs }: RestoredPoint): string {
  return `${formatBytes(writtenBytes)} at ${formatSpeed((writtenBytes / durationMs) * 1000)}`;
}
