import type { SigningKey } from '../crypto/signing.ts';
import { type Chain, openChain, ReplicaNotFound } from './chain.ts';
import { toHex } from './encoding.ts';
import { type OpenRepository, refreshTrust } from './open-repository.ts';
import { Fenced } from './put-once.ts';
import { writeEntry } from './write-entry.ts';

/** Dropping recovery points by an entry (rule R5): nothing is deleted here, and what was pruned is only then garbage to a sweeper. */

const attemptsMax = 32;

export interface Pruner {
  readonly agent: SigningKey;
  readonly now: () => number;
  /** Which points go, of the chain as it is; asked again when somebody else's entry came first. */
  readonly choose: (chain: Chain) => Promise<readonly number[]>;
}

/** The points that were pruned, ascending. Throws Fenced after losing too many races for the next entry; nothing was pruned then. */
export async function prunePoints(
  repo: OpenRepository,
  machineId: Uint8Array,
  { agent, now, choose }: Pruner,
  signal: AbortSignal,
): Promise<readonly number[]> {
  let current = repo;
  for (let attempt = 0; attempt < attemptsMax; attempt++) {
    const chain = await openChain(current, machineId, signal);
    if (chain === null) throw new ReplicaNotFound(`there is no replica of machine ${toHex(machineId)}`);
    const points = [...(await choose(chain))].sort((a, b) => a - b);
    if (points.length === 0) return [];
    const body = { type: 'prune' as const, points };
    const writer = { agent, timeMs: now(), announce: () => undefined };
    if ((await writeEntry(current, chain, { body, births: [], deaths: [] }, writer, signal)) !== null) return points;
    current = await refreshTrust(current, signal);
  }
  throw new Fenced(
    `machine ${toHex(machineId)}: lost ${attemptsMax} races for the next chain entry; nothing was pruned`,
  );
}
