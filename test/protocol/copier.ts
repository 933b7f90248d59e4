import { openChain } from '../../replica/chain.ts';
import { copyDescription, copyMachine } from '../../replica/copy-replica.ts';
import type { OpenRepository } from '../../replica/open-repository.ts';
import { ObjectNotFound } from '../../storage-targets/errors.ts';
import type { StorageTarget } from '../../storage-targets/storage-target.ts';
import { sweepOne } from './pruner.ts';
import type { World } from './world.ts';

/** The same repository at a second place: copied while others write, and swept there by what the copy says of itself. */

const never = new AbortController().signal;

export async function runCopier(
  world: World,
  repo: OpenRepository,
  bare: StorageTarget,
  { sweeps = true }: { readonly sweeps?: boolean } = {},
): Promise<void> {
  if ((await openChain(repo, world.machineId, never)) === null) return;
  if (sweeps && world.random.chance(0.3)) return await sweepOne(world, { ...repo, target: bare });
  const retention = world.retention?.() ?? null;
  const to = world.lockingTarget(bare, retention);
  await copyDescription(repo, to, never);
  const progress = { segments: 0, bytes: 0, presentSegments: 0 };
  const lockUntil = retention === null ? null : await retention.until(to, never);
  try {
    const { head } = await copyMachine(repo, to, world.machineId, progress, lockUntil, never);
    world.copyTruth.checkWhole(head.seq);
    world.counters.copies++;
  } catch (error) {
    // Pruned and swept under its hands again and again: it gave up, and says so.
    if (!(error instanceof ObjectNotFound)) throw error;
  }
}
