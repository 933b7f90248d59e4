import { openChain } from '../../replica/chain.ts';
import { findGarbage } from '../../replica/garbage.ts';
import type { OpenRepository } from '../../replica/open-repository.ts';
import { prunePoints } from '../../replica/prune.ts';
import { Immutable } from '../../storage-targets/errors.ts';
import { appendEntry } from './append-entry.ts';
import { emptyLockMs } from './truth.ts';
import type { AgentState, World } from './world.ts';

/** Drops recovery points by an entry, and deletes what then nobody needs: two roles, often one process. */

const never = new AbortController().signal;

export async function runPruner(world: World, repo: OpenRepository, agent: AgentState): Promise<void> {
  if (world.random.chance(0.7)) await prune(world, repo, agent);
  else if (world.random.chance(0.3)) return await lock(world, repo, agent);
  await sweepOne(world, repo);
}

async function lock(world: World, repo: OpenRepository, agent: AgentState): Promise<void> {
  const chain = await openChain(repo, world.machineId, never);
  if (chain === null) return;
  await appendEntry(
    repo,
    chain,
    { type: 'lock', generation: chain.state.lockGeneration + 1, untilMs: emptyLockMs },
    agent.key,
  );
}

async function prune(world: World, repo: OpenRepository, agent: AgentState): Promise<void> {
  if ((await openChain(repo, world.machineId, never)) === null) return;
  const choose = async ({ state }: { readonly state: { readonly points: ReadonlyMap<number, unknown> } }) => {
    const seqs = [...state.points.keys()];
    const candidates = world.does('prunes the newest point') ? seqs : seqs.slice(0, -1);
    return candidates.filter(() => world.random.chance(0.5));
  };
  const pruned = await prunePoints(repo, world.machineId, { agent: agent.key, now: () => 1, choose }, never);
  if (pruned.length > 0) world.counters.prunes++;
}

/** Deletes one by one, arbitrarily late: what is garbage stays garbage. */
export async function sweepOne(world: World, repo: OpenRepository): Promise<void> {
  for await (const { name, kind } of findGarbage(repo, world.machineId, never)) {
    try {
      await repo.target.delete([name], never);
      if (kind === 'segment') world.counters.swept++;
    } catch (error) {
      if (!(error instanceof Immutable)) throw error;
      world.counters.locked++;
    }
  }
}
