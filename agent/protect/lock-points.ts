import { openChain } from '../../replica/chain.ts';
import { ChainState } from '../../replica/chain-state.ts';
import type { Birth } from '../../replica/control.ts';
import { lockReplica } from '../../replica/lock-replica.ts';
import type { Tenure } from '../../replica/tenure.ts';
import { ObjectNotFound } from '../../storage-targets/errors.ts';
import type { Retention } from '../../storage-targets/with-retention.ts';
import type { MachineState } from '../state/machine-state.ts';

/** Each time somebody pruned meanwhile, and swept what was to be locked. */
const attemptsMax = 5;

/** The point was published, but what it needs is not locked for as long as the configuration says. */
export class ImmutabilityNotExtended extends Error {
  readonly code = 'IMMUTABILITY_NOT_EXTENDED';
  override readonly name = 'ImmutabilityNotExtended';
}

/**
 * Before a publish, when its segments are durable: locks everything that is retained for another generation, once what was locked last no longer
 * covers the period. What this run put is locked already. Returns what went wrong: a point that is not locked for long is better than none.
 */
export async function lockIfDue(
  retention: Retention | null,
  tenure: Tenure,
  births: readonly Birth[],
  state: Pick<MachineState, 'lockedUntilMs' | 'keepLock'>,
  signal: AbortSignal,
): Promise<unknown> {
  if (retention === null) return null;
  const place = tenure.repo.target.description;
  // Not what the chain says alone: whoever stole the agent's key may have said it, and locked nothing.
  const locked = Math.min(tenure.state.lockUntilMs, state.lockedUntilMs(place));
  const failed = (error: unknown): { readonly failure: unknown } => {
    signal.throwIfAborted();
    return { failure: error };
  };
  const until = await lockUntil(retention, locked, tenure, births, signal).catch(failed);
  if (until === null) return null;
  if ('failure' in until) return until.failure;
  await tenure.lock(until.getTime(), signal);
  state.keepLock(place, until.getTime());
  // Another host may have said a later day just before.
  const kept = await keepUp(retention, tenure, births, signal).catch(failed);
  return kept?.failure ?? null;
}

/** Null where what was locked last is enough. */
async function lockUntil(
  retention: Retention,
  lockedUntilMs: number,
  tenure: Tenure,
  births: readonly Birth[],
  signal: AbortSignal,
): Promise<Date | null> {
  const { target } = tenure.repo;
  if (await retention.covers(lockedUntilMs, target, signal)) {
    await keepUp(retention, tenure, births, signal);
    return null;
  }
  if (!(await retention.covers((await retention.until(target, signal)).getTime(), target, signal))) retention.renew();
  const until = await retention.until(target, signal);
  await lockAll(tenure, births, until, signal);
  return until;
}

/**
 * Where another host began a generation since this process did, what this run put is locked for less than the chain says; so may be what it
 * adopts. It is made up for from this host's own period, never by what the chain says: a thief of the key may have said any day.
 */
async function keepUp(
  retention: Retention,
  { repo: { target }, state, machineId, id }: Tenure,
  births: readonly Birth[],
  signal: AbortSignal,
): Promise<void> {
  const isBehind = (await retention.until(target, signal)).getTime() < state.lockUntilMs;
  if (!isBehind && births.every(({ tenure }) => tenure === id)) return;
  if (isBehind) retention.renew();
  const until = await retention.until(target, signal);
  if (until.getTime() < state.lockUntilMs) return;
  await lockReplica(target, { machineId, state: new ChainState(), births }, until, signal);
}

async function lockAll(
  { repo, machineId, state, head }: Tenure,
  births: readonly Birth[],
  until: Date,
  signal: AbortSignal,
): Promise<void> {
  let known = { state, head };
  for (let attempt = 1; ; attempt++) {
    try {
      await lockReplica(repo.target, { machineId, state: known.state, births }, until, signal);
      return;
    } catch (error) {
      const now = error instanceof ObjectNotFound ? await openChain(repo, machineId, signal) : null;
      if (now === null || now.head.seq === known.head.seq || attempt === attemptsMax) throw error;
      known = now;
    }
  }
}

export function notExtended(point: number, untilMs: number, cause: unknown): ImmutabilityNotExtended {
  const until = untilMs === 0 ? 'not immutable' : `immutable until ${new Date(untilMs).toISOString()} only`;
  const why = cause instanceof Error ? cause.message : String(cause);
  return new ImmutabilityNotExtended(`point ${point} was published, but is ${until}: ${why}`, { cause });
}
