import { isPeerPresent, peerNeeds } from '../../test/peers/server-process.ts';
import { borg } from './borg.ts';
import type { Contestant } from './contestant.ts';
import { failkit } from './failkit.ts';
import { kopia } from './kopia.ts';
import { rclone } from './rclone.ts';
import { restic } from './restic.ts';
import { rustic } from './rustic.ts';

/** Who takes part: ours first. */
export const allContestants: readonly Contestant[] = [failkit, restic, kopia, rustic, borg, rclone];

export interface Field {
  readonly present: readonly Contestant[];
  /** Each with the reason. */
  readonly missing: readonly string[];
}

/** Installs what is missing and can be had. */
export async function gather(wanted: readonly Contestant[]): Promise<Field> {
  const present: Contestant[] = [];
  const missing: string[] = [];
  for (const contestant of wanted) {
    const needs = contestant.peer === null ? null : await peerNeeds(contestant.peer);
    if (needs === null) present.push(contestant);
    else missing.push(`${contestant.name}: ${needs}`);
  }
  return { present, missing };
}

/** Those that need no installing. */
export function gatherInstalled(wanted: readonly Contestant[]): readonly Contestant[] {
  return wanted.filter(({ peer }) => peer === null || isPeerPresent(peer));
}
