import { guestNeeds } from '../../test/peers/guest.ts';
import { nbdNeeds } from '../../test/peers/nbd.ts';
import { peerNeeds } from '../../test/peers/server-process.ts';
import type { Arena } from '../arena.ts';
import { gather } from '../contestants/all.ts';
import { failkit } from '../contestants/failkit.ts';
import { type BootRow, openBootStand } from './measure-boot.ts';
import { type ReadRow, readers, readRound } from './measure-reads.ts';
import { bootTable, readTable } from './serve-table.ts';

/** A stored disk, read where it is: random, in a row, and by a machine that boots from it. */

const roundTripsMs = [0, 20];

export async function serveRounds(
  arena: Arena,
  rounds: number,
  without: readonly string[],
): Promise<{
  readonly reads: readonly ReadRow[];
  readonly boots: readonly BootRow[];
  readonly lines: readonly string[];
}> {
  const lines: string[] = [];
  const reads: ReadRow[] = [];
  const boots: BootRow[] = [];
  const needs = await nbdNeeds();
  if (needs === null) {
    const mounts = await peerNeeds('bench/fuse');
    const { present, missing } = await gather(
      (mounts === null ? readers : [failkit]).filter(({ name }) => !without.includes(name)),
    );
    for (let round = 1; round <= rounds; round++) reads.push(...(await readRound(arena, round, roundTripsMs, present)));
    lines.push(
      ...readTable(reads),
      '',
      ...[...missing, ...(mounts === null ? [] : [`mounted programs: ${mounts}`])].map(
        (reason) => `* not measured: ${reason}`,
      ),
      '',
    );
  } else lines.push(`* not measured: ${needs}`, '');
  const noGuest = await guestNeeds();
  if (noGuest === null) boots.push(...(await bootRounds(arena, rounds)));
  lines.push(...(noGuest === null ? bootTable(boots) : [`* not measured: ${noGuest}`]));
  return { reads, boots, lines };
}

async function bootRounds(arena: Arena, rounds: number): Promise<readonly BootRow[]> {
  const boots: BootRow[] = [];
  await using stand = await openBootStand(arena.folder, arena.launcher);
  for (let round = 1; round <= rounds; round++)
    for (const roundTripMs of roundTripsMs) {
      const row = await stand.boot(round, roundTripMs);
      arena.say(`${round} boot ${JSON.stringify(row)}`);
      boots.push(row);
    }
  return boots;
}
