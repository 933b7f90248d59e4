import { createHash } from 'node:crypto';
import { createReadStream, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type * as z from 'zod';
import type { DiskImage, KnownContent } from './disk-image.ts';
import { makeExt4Image } from './ext4-image.ts';
import { failkit, publishedPoints, type RunOfMachine } from './failkit-process.ts';
import { makePlainImage } from './plain-image.ts';
import { hasExt4Tools } from './programs.ts';
import type { Screen } from './screen.ts';

/** The customer's site: a machine with a disk, the agent's configuration, key and state. The bucket and the kit lie elsewhere. */

export const machineName = 'accounting-server';
export const diskLabel = 'system';
/** A common uplink. The run that is to be killed is given no more, so that there is a middle to kill it in. */
export const slowUplinkMbitPerSecond = 200;

export interface Site {
  readonly folder: string;
  readonly bucket: string;
  readonly kit: string;
  readonly disk: DiskImage;
  readonly known: KnownContent;
  readonly screen: Screen;
  readonly signal: AbortSignal;
}

/** Makes `site/` with the disk and two configurations, the usual one and one for a slow uplink. */
export async function makeSite(root: string, known: KnownContent, screen: Screen, signal: AbortSignal): Promise<Site> {
  const folder = join(root, 'site');
  mkdirSync(folder);
  const bucket = join(root, 'bucket');
  writeFileSync(join(folder, 'failkit.yaml'), configText(''));
  const slow = `limits: { uploadMbitPerSecond: ${slowUplinkMbitPerSecond} }\n`;
  writeFileSync(join(folder, 'slow-uplink.yaml'), configText(slow));
  const path = join(folder, 'disk.img');
  const disk = (await hasExt4Tools(folder, signal))
    ? await makeExt4Image(path, join(root, 'workshop'), known, signal)
    : makePlainImage(path, known);
  return { folder, bucket, kit: join(root, 'kit'), disk, known, screen, signal };
}

function configText(more: string): string {
  return `repository: { target: filesystem, directory: ../bucket }
keys: { provider: local-key, file: local.key }
state: state
machines:
  - name: ${machineName}
    source: { type: image, disks: [ { label: ${diskLabel}, path: disk.img } ] }
${more}`;
}

/** Runs failkit as the site's agent. */
export async function atSite<Document>(
  site: Site,
  args: readonly string[],
  document: z.ZodType<Document>,
  exitCode = 0,
): Promise<Document> {
  const { folder: cwd, signal, screen } = site;
  return await screen.during(`failkit ${args.join(' ')}`, failkit(args, document, { cwd, signal, exitCode }));
}

export async function protect(site: Site, verb: 'seed' | 'sync'): Promise<RunOfMachine> {
  const { machines } = await atSite(site, [verb], publishedPoints);
  return machines[0];
}

export async function sha256Of(path: string, signal: AbortSignal): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path, { highWaterMark: 2 ** 20, signal })) hash.update(chunk);
  return hash.digest('hex');
}
