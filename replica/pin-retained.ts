import { type Chain, openChain, ReplicaNotFound } from './chain.ts';
import { toHex } from './encoding.ts';
import type { OpenRepository } from './open-repository.ts';
import { putPin } from './pins.ts';
import { findPrunedPoints } from './pruned-points.ts';

/**
 * Puts a pin and looks again whether the point is still there (rule R8), or pruned and kept by something else. Throws ReplicaNotFound where it
 * is not; no pin stays then. `lockedMs`: how long what was published is locked in this store.
 */
export async function pinRetained(
  repo: OpenRepository,
  machineId: Uint8Array,
  point: number,
  { hours, lockedMs }: { readonly hours: number; readonly lockedMs: number },
  signal: AbortSignal,
): Promise<string> {
  const name = await putPin(repo.target, machineId, point, hours, signal);
  const chain = await openChain(repo, machineId, signal);
  const isThere = async (current: Chain): Promise<boolean> => {
    if (current.state.points.has(point)) return true;
    const { points } = await findPrunedPoints(repo, current, { lockedMs, besides: name }, signal);
    return points.some(({ seq }) => seq === point);
  };
  if (chain !== null && (await isThere(chain))) return name;
  await repo.target.delete([name], signal);
  throw new ReplicaNotFound(`machine ${toHex(machineId)} has no recovery point ${point} any more: it was pruned`);
}
