import { ReplicaNotFound } from '../replica/chain.ts';
import { dayMs } from '../replica/garbage.ts';
import { findPrunedPoints } from '../replica/pruned-points.ts';
import type { OpenReplica } from '../restore/open-point.ts';
import type { Config } from './config/config-schema.ts';

/** Which recovery point an operator means: a number, a time, or the newest. */

/** A point that can't be meant. */
export class PointMalformed extends Error {
  readonly code = 'POINT_MALFORMED';
  override readonly name = 'PointMalformed';
}

/** Throws PointMalformed, or ReplicaNotFound where no point is that old. That a number exists is not checked. */
function choosePoint(replica: OpenReplica, wanted: string | undefined): number {
  const newest = replica.points.at(-1);
  if (newest === undefined) throw new ReplicaNotFound('this machine has no recovery point yet');
  if (wanted === undefined || wanted === 'latest') return newest;
  if (/^\d+$/.test(wanted)) return Number(wanted);
  const time = Date.parse(wanted);
  if (Number.isNaN(time))
    throw new PointMalformed(
      `${JSON.stringify(wanted)} is no point: give its number, or a time like 2026-11-21T20:00:00Z`,
    );
  const before = [...replica.chain.state.points.values()].filter(({ timeMs }) => timeMs <= time).at(-1);
  if (before === undefined) throw new ReplicaNotFound(`no recovery point is as old as ${new Date(time).toISOString()}`);
  return before.seq;
}

/**
 * The same; a number may also be one of a point that was pruned and that the root key's floor, a lock or a pin still keeps, which is readmitted
 * then. That it exists is not checked.
 */
export async function findPoint(
  replica: OpenReplica,
  wanted: string | undefined,
  config: Config,
  signal: AbortSignal,
): Promise<number> {
  const point = choosePoint(replica, wanted);
  if (replica.points.includes(point) || replica.damage.length > 0) return point;
  replica.readmit(await findPrunedPoints(replica.repo, replica.chain, { lockedMs: lockedMsOf(config) }, signal));
  return point;
}

/** How long what this host publishes is locked at least. */
export function lockedMsOf({ repository }: Config): number {
  return repository.target === 'filesystem' ? 0 : (repository.immutability?.days ?? 0) * dayMs;
}
