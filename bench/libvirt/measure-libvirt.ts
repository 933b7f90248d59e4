import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { libvirtNeeds } from '../../test/peers/libvirt.ts';
import { peerNeeds } from '../../test/peers/server-process.ts';
import type { Arena } from '../arena.ts';
import { type Measured, measure } from '../measure.ts';
import { describeObserved, type Observed, observe } from '../observe.ts';
import { type LibvirtStand, openLibvirtStand } from './libvirt-stand.ts';
import { type CopyProgram, copyPrograms, type MachineCopy, virtnbdbackupPeer } from './programs.ts';

/** A running machine of libvirt copied, copied again after a fiftieth of its data changed, and restored. */

const changedShare = 0.02;

export const copySteps = ['seed', 'sync of 2 %', 'restore'] as const;

export interface CopyRow extends Observed {
  readonly round: number;
  readonly program: string;
  readonly step: (typeof copySteps)[number];
  readonly changedBlocks: number;
  /** By then, of all that is kept. */
  readonly storedBytes: number;
}

/** What is missing, or null. */
export async function copyNeeds(): Promise<string | null> {
  return (await libvirtNeeds()) ?? (await peerNeeds(virtnbdbackupPeer));
}

/** Everybody once, each on a machine of its own. Each round begins with another one. */
export async function copyRound(arena: Arena, round: number): Promise<readonly CopyRow[]> {
  const first = (round - 1) % copyPrograms.length;
  const rows: CopyRow[] = [];
  for (const program of [...copyPrograms.slice(first), ...copyPrograms.slice(0, first)])
    rows.push(...(await copyAlone(arena, program, round)));
  return rows;
}

async function copyAlone(arena: Arena, program: CopyProgram, round: number): Promise<readonly CopyRow[]> {
  await using stand = await openLibvirtStand(arena);
  const copy = await program.open(stand);
  const rows: CopyRow[] = [];
  const take = async (step: CopyRow['step'], changedBlocks: number, work: () => Promise<Measured>): Promise<void> => {
    const observed = await observe([stand.qemuPid, stand.stand.server.pid], work);
    rows.push({
      round,
      program: program.name,
      step,
      changedBlocks,
      storedBytes: storedBytes(stand, copy),
      ...observed,
    });
    arena.say(`${round} ${program.name} ${step}: ${describeObserved(observed)}`);
  };
  await take('seed', 0, () => copy.seed());
  const changed = await stand.change(changedShare);
  await take('sync of 2 %', changed, () => copy.sync());
  const to = stand.stand.newFolder();
  await take('restore', changed, () => copy.restore(to));
  await stand.requireRestored(join(to, copy.restoredName(stand.dataDisk)));
  return rows;
}

function storedBytes({ stand }: LibvirtStand, { storeFolder }: MachineCopy): number {
  const files = readdirSync(storeFolder ?? stand.server.folder, { recursive: true, withFileTypes: true });
  return files
    .filter((entry) => entry.isFile())
    .reduce((sum, entry) => sum + statSync(join(entry.parentPath, entry.name)).size, 0);
}

export async function copyVersions(): Promise<readonly string[]> {
  const said = async (command: string, ...args: readonly string[]) =>
    (await measure({ command, args })).stdout.trim().split('\n')[0] ?? '';
  return [
    `virtnbdbackup ${await said('virtnbdbackup', '--version')}`,
    await said('virsh', '--version').then((version) => `libvirt ${version}`),
    await said('qemu-system-x86_64', '--version'),
  ];
}
