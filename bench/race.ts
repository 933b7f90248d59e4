import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { type Arena, openStand, readThrough, requireSame, type Stand } from './arena.ts';
import type { Compression, Contestant, Run } from './contestants/contestant.ts';
import type { Measured } from './measure.ts';
import { describeObserved, type Observed, observe } from './observe.ts';

/** Programs in turns: each from an empty bucket to a restored image, which must be the image. */

export const steps = ['seed', 'resync', 'restore'] as const;
export type Step = (typeof steps)[number];

/** One step of one program in one round, as it was measured. */
export interface Row extends Observed {
  readonly round: number;
  readonly contestant: string;
  readonly compression: Compression;
  readonly step: Step;
  /** What the seed stored. */
  readonly storedBytes: number;
}

export interface RaceOptions {
  readonly contestants: readonly Contestant[];
  readonly compressions: readonly Compression[];
  /** A seed is always made: the others need it. */
  readonly steps: readonly Step[];
}

/** Everybody once. Each round begins with another one, so that nobody always runs after the same. */
export async function raceRound(arena: Arena, options: RaceOptions, round: number): Promise<readonly Row[]> {
  const { contestants } = options;
  const first = (round - 1) % contestants.length;
  const turns = [...contestants.slice(first), ...contestants.slice(0, first)];
  const rows: Row[] = [];
  for (const compression of options.compressions)
    for (const contestant of turns.filter(({ compressions }) => compressions.includes(compression)))
      rows.push(...(await raceAlone(arena, contestant, compression, options.steps, round)));
  return rows;
}

async function raceAlone(
  arena: Arena,
  contestant: Contestant,
  compression: Compression,
  wanted: readonly Step[],
  round: number,
): Promise<readonly Row[]> {
  await using stand = await openStand(arena);
  const run = await contestant.open(stand.place, compression);
  const rows: Row[] = [];
  let storedBytes = 0;
  for (const step of steps.filter((name) => name === 'seed' || wanted.includes(name))) {
    await readThrough(arena.image);
    const pid = run.storeFolder === null ? stand.server.pid : null;
    const observed = await observe(pid, () => take(step, run, stand));
    if (step === 'seed') storedBytes = bytesBelow(run.storeFolder ?? stand.server.folder);
    rows.push({ round, contestant: contestant.name, compression, step, ...observed, storedBytes });
    arena.say(`${round} ${contestant.name} ${compression} ${step}: ${describeObserved(observed)}`);
  }
  return rows;
}

async function take(step: Step, run: Run, stand: Stand): Promise<Measured> {
  if (step !== 'restore') return await run[step]();
  const { measured, image } = await run.restore(stand.newFolder());
  requireSame(stand.place.image, image);
  return measured;
}

function bytesBelow(folder: string): number {
  const files = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  return files.reduce((sum, entry) => sum + statSync(join(entry.parentPath, entry.name)).size, 0);
}
