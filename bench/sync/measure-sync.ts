import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { nbdNeeds, runNbdTool } from '../../test/peers/nbd.ts';
import { type Arena, openStand, readThrough } from '../arena.ts';
import { machineName, openFailkit } from '../contestants/failkit.ts';
import type { Measured } from '../measure.ts';
import { describeObserved, type Observed, observe } from '../observe.ts';
import { changeBlocks } from './change-blocks.ts';

/**
 * What a sync costs where a dirty bitmap tells what changed: with nothing changed, with a hundredth and with two hundredths of all blocks.
 * From the two together one sees what blocks cost, and what is the same for any number: the start, and code that is not compiled yet.
 */

const changedShare = 0.01;
const emptySyncs = 5;

export interface SyncRow extends Observed {
  readonly round: number;
  readonly step: 'seed' | 'empty sync' | 'sync of 1 %' | 'sync of 2 %' | 'restore';
  readonly changedBlocks: number;
}

/** What is missing, or null. */
export const syncNeeds = nbdNeeds;

export async function syncRound(arena: Arena, round: number): Promise<readonly SyncRow[]> {
  await using stand = await openStand(arena);
  const { folder } = stand.place;
  const qcow2 = join(folder, 'disk.qcow2');
  await runNbdTool('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', arena.image, qcow2]);
  const run = await openFailkit(stand.place, 'fastest', `path: ${qcow2}, format: qcow2, tracking: bitmap`);
  const rows: SyncRow[] = [];
  const take = async (step: SyncRow['step'], work: () => Promise<Measured>, changedBlocks = 0): Promise<void> => {
    await readThrough(qcow2);
    const observed = await observe(stand.server.pid, work);
    rows.push({ round, step, ...observed, changedBlocks });
    arena.say(`${round} ${step}: ${describeObserved(observed)}`);
  };
  await take('seed', () => run('seed'));
  for (let i = 0; i < emptySyncs; i++) await take('empty sync', () => syncTracked(run));
  for (const [step, share] of [
    ['sync of 1 %', changedShare],
    ['sync of 2 %', 2 * changedShare],
  ] as const) {
    const changed = await changeBlocks(qcow2, arena.image, share, join(folder, `share-${share}`));
    await take(step, () => syncTracked(run), changed);
  }
  const to = stand.newFolder();
  await take('restore', () => run('restore', machineName, '--to', to));
  await runNbdTool('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', join(to, 'disk.raw'), qcow2]);
  rmSync(to, { recursive: true });
  return rows;
}

/** Throws when the disk was read in full, for that would measure something else. */
async function syncTracked(run: Awaited<ReturnType<typeof openFailkit>>): Promise<Measured> {
  const measured = await run('sync');
  if (/resync/.test(measured.stdout)) throw new Error(`the bitmap was not used:\n${measured.stdout}`);
  return measured;
}
