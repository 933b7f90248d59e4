import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { exitCodes } from '../../agent/remedy.ts';
import { flipBit } from '../bucket-folder.ts';
import { claim } from '../claim.ts';
import { failedCommand } from '../failkit-process.ts';
import { atSite, diskLabel, machineName, type Site } from '../site.ts';
import type { InterruptedPoint } from './protect.ts';

/** The bit flips in what the killed sync had stored: only the point that adopted it is hurt. */
export async function damageOneBit(site: Site, hurt: InterruptedPoint): Promise<void> {
  const { screen } = site;
  screen.chapter('One bit in the bucket flips');
  const victim = hurt.storedBefore.reduce((largest, object) => (object.bytes > largest.bytes ? object : largest));
  const { at, before, after } = flipBit(site.bucket, victim);
  screen.aside(`…${victim.name.slice(-37)}, byte ${at.toLocaleString('en')}: ${hex(before)} became ${hex(after)}`);

  const to = join(site.folder, 'damaged.raw');
  const point = String(hurt.run.point);
  const args = ['restore', machineName, '--disk', diskLabel, '--point', point, '--to', 'damaged.raw'];
  const { error } = await atSite(site, args, failedCommand, exitCodes.damage);
  claim(error.message.includes(victim.name), `the damaged object is named: ${error.message}`);
  claim(!existsSync(to), 'no damaged disk stands under its final name');
  screen.held(`restore of point ${point}: exit ${exitCodes.damage}, ${error.code}, and the object is named`);
}

function hex(byte: number): string {
  return `0x${byte.toString(16).padStart(2, '0')}`;
}
