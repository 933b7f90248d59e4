import { ObjectNotFound } from '../storage-targets/errors.ts';
import type { StorageTarget } from '../storage-targets/storage-target.ts';
import { type Chain, ChainBroken, openChainSince } from './chain.ts';
import { isNeeded } from './chain-state.ts';
import type { RetainedPoint, SegmentLife } from './control.ts';
import { sameBytes } from './encoding.ts';
import { dayMs, entriesSince } from './garbage.ts';
import { inParallel } from './in-parallel.ts';
import { chainEntryName, segmentName } from './names.ts';
import type { OpenRepository } from './open-repository.ts';
import { isHolding, readPins } from './pins.ts';

/**
 * Points that an entry pruned and that nothing may sweep yet: docs/format.md §8.4. Whoever stole an agent's key can prune them all; they can
 * be read as before for as long as something keeps them.
 */

const pointsAtOnceMax = 16;

export interface PrunedPoint extends RetainedPoint {
  readonly keptBy: 'floor' | 'lock' | 'pin';
  /** By the store's clock; null: until a pin is removed. */
  readonly untilMs: number | null;
}

export interface PrunedPoints {
  /** Ascending. */
  readonly points: readonly PrunedPoint[];
  /** What they need, among others. */
  readonly segments: Iterable<SegmentLife>;
}

/** How long what was published is locked at least in this store, by whoever configured it; 0: there is no object lock. */
export interface KeptHow {
  readonly lockedMs: number;
  /** A pin that is not to count. */
  readonly besides?: string;
}

/** One LIST of pins; where there is a floor or a lock, one of the chain, and a GET for each entry that is younger; where some are found, a HEAD for each segment that they alone need. */
export async function findPrunedPoints(
  repo: OpenRepository,
  chain: Chain,
  { lockedMs, besides }: KeptHow,
  signal: AbortSignal,
): Promise<PrunedPoints> {
  const { target, trust } = repo;
  const { machineId, head, state } = chain;
  const nowMs = (await target.now(signal)).getTime();
  const floorMs = trust.retentionFloorDays * dayMs;
  const young = await entriesSince(target, machineId, nowMs, Math.max(floorMs, lockedMs), signal);
  const pins = (await readPins(target, machineId, signal)).filter((pin) => isHolding(pin, nowMs));
  const pinned = new Set(pins.filter(({ name }) => name !== besides).map(({ point }) => point));
  const kept = (seq: number): Pick<PrunedPoint, 'keptBy' | 'untilMs'> => {
    const sinceMs = young.get(seq) ?? 0;
    if (sinceMs + floorMs > nowMs) return { keptBy: 'floor', untilMs: sinceMs + floorMs };
    return sinceMs + lockedMs > nowMs
      ? { keptBy: 'lock', untilMs: sinceMs + lockedMs }
      : { keptBy: 'pin', untilMs: null };
  };
  const candidates = [...young.keys(), ...pinned].filter((seq) => seq > 0 && seq <= head.seq && !state.points.has(seq));
  if (candidates.length === 0) return { points: [], segments: [] };
  const first = candidates.reduce((least, seq) => Math.min(least, seq));
  const whole = await openChainSince(repo, machineId, first, head.seq, signal);
  if (!sameBytes(whole.head.digest, head.digest))
    throw new ChainBroken(`${chainEntryName(machineId, head.seq)} is not the entry that was read before`);
  const wanted = new Set(candidates);
  const points = whole.recent
    .filter(({ seq, body, isVoid }) => body.type === 'publish' && !isVoid && wanted.has(seq))
    .map(({ seq, timeMs, digest }) => ({ seq, timeMs, digest, ...kept(seq) }));
  const present = await whatIsThere(repo, whole, points, signal);
  return { points: present, segments: whole.state.segments.values() };
}

/** Of these points, those that nobody swept: before the floor or the lock was there, or one that did not ask for it. */
async function whatIsThere(
  { target }: OpenRepository,
  { machineId, state }: Chain,
  points: readonly PrunedPoint[],
  signal: AbortSignal,
): Promise<readonly PrunedPoint[]> {
  const retained = [...state.points.values()];
  // What a retained point needs, too, is there.
  const doubtful = [...state.segments.values()].filter((life) => !isNeeded(life, retained));
  const known = new Map<string, Promise<boolean>>();
  const isThere = (life: SegmentLife): Promise<boolean> => {
    const name = segmentName(machineId, life);
    const asked = known.get(name) ?? exists(target, name, signal);
    known.set(name, asked);
    return asked;
  };
  const verdicts = await inParallel(points, pointsAtOnceMax, signal, async (point) => {
    for (const life of doubtful) if (isNeeded(life, [point]) && !(await isThere(life))) return false;
    return true;
  });
  return points.filter((_, i) => verdicts[i]);
}

async function exists(target: StorageTarget, name: string, signal: AbortSignal): Promise<boolean> {
  try {
    await target.head(name, signal);
    return true;
  } catch (error) {
    if (!(error instanceof ObjectNotFound)) throw error;
    return false;
  }
}
