import type { SigningKey } from '../../crypto/signing.ts';
import { type Chain, openChain } from '../../replica/chain.ts';
import type { EntryBody } from '../../replica/chain-entry.ts';
import { type ChainState, isNeeded } from '../../replica/chain-state.ts';
import { machinePrefix, type SegmentId, segmentKey, segmentsPrefix } from '../../replica/names.ts';
import type { OpenRepository } from '../../replica/open-repository.ts';
import { appendEntry, effectOf } from './append-entry.ts';
import type { AgentState, World } from './world.ts';

/** Drops recovery points by an entry, and deletes what then nobody needs: two roles, often one process. */

const never = new AbortController().signal;

export async function runPruner(world: World, repo: OpenRepository, agent: AgentState): Promise<void> {
  const early = world.does('lists pins before the chain') ? await listPins(world, repo) : null;
  const chain = await openChain(repo, world.machineId, never);
  if (chain === null) return;
  if (world.random.chance(0.7)) {
    const pruned = await prune(world, repo, chain, agent.key);
    if (!pruned) return;
  } else if (world.random.chance(0.3)) {
    await appendEntry(repo, chain, { type: 'lock', generation: chain.state.lockGeneration + 1, untilMs: 5 }, agent.key);
    return;
  }
  // The chain is read before the pins (rule R8): whoever saw its point there has a pin that is seen here.
  const pins = early ?? (await listPins(world, repo));
  await sweep(world, repo, chain.state, pins);
}

/** False when somebody else's entry came first. Afterwards `chain.state` is the state after the prune. */
async function prune(world: World, repo: OpenRepository, chain: Chain, key: SigningKey): Promise<boolean> {
  const seqs = [...chain.state.points.keys()];
  const candidates = world.does('prunes the newest point') ? seqs : seqs.slice(0, -1);
  const victims = candidates.filter(() => world.random.chance(0.5));
  if (victims.length === 0) return true;
  const body: EntryBody = { type: 'prune', points: victims };
  if (world.does('prunes without an entry')) {
    chain.state.apply(effectOf(chain, body, key), { births: [], deaths: [], summary: null });
    return true;
  }
  if (world.does('deletes before the entry')) {
    const foreseen = (await openChain(repo, world.machineId, never))?.state ?? chain.state;
    for (const victim of victims) foreseen.points.delete(victim);
    await sweep(world, repo, foreseen, await listPins(world, repo));
  }
  const appended = await appendEntry(repo, chain, body, key);
  if (appended) world.counters.prunes++;
  return appended;
}

export function pinName(world: World, seq: number, reader: string): string {
  return `${machinePrefix(world.machineId)}pins/${String(seq).padStart(16, '0')}-${reader}`;
}

async function listPins(world: World, repo: OpenRepository): Promise<readonly number[]> {
  const pins: number[] = [];
  const prefix = `${machinePrefix(world.machineId)}pins/`;
  for await (const { name } of repo.target.list(prefix, {}, never)) {
    pins.push(Number(name.slice(prefix.length, prefix.length + 16)));
  }
  return pins;
}

/** Deletes one by one, arbitrarily late: what is garbage stays garbage. */
export async function sweep(
  world: World,
  repo: OpenRepository,
  state: ChainState,
  pins: readonly number[],
): Promise<void> {
  const prefix = segmentsPrefix(world.machineId);
  if (pins.some((seq) => !state.points.has(seq))) world.counters.pinnedAfterPrune++;
  for await (const { name } of repo.target.list(prefix, {}, never)) {
    const id = { tenure: Number(name.slice(prefix.length, prefix.length + 16)), number: Number(name.slice(-10)) };
    if (!isGarbage(world, state, pins, id)) continue;
    await repo.target.delete([name], never);
    world.counters.swept++;
  }
}

function isGarbage(world: World, state: ChainState, pins: readonly number[], id: SegmentId): boolean {
  const held = world.does('sweeps what is pinned') ? [] : pins;
  const life = state.segments.get(segmentKey(id));
  if (life !== undefined) return !isNeeded(life, pointsWith(state, held));
  // A summary leaves out segments that only pruned points used. A pinned one may be among those: a point uses only
  // segments of tenures that began before it.
  const forgets = world.does('forgets pinned points that a summary left out');
  if (!forgets && held.some((seq) => seq > id.tenure && !state.points.has(seq))) return false;
  return !mayYetBeBorn(world, state, id);
}

function pointsWith(state: ChainState, pins: readonly number[]) {
  const pinned = pins
    .filter((seq) => !state.points.has(seq))
    .map((seq) => ({ seq, timeMs: 0, digest: new Uint8Array() }));
  return [...state.points.values(), ...pinned].sort((a, b) => a.seq - b.seq);
}

function mayYetBeBorn(world: World, state: ChainState, id: SegmentId): boolean {
  if (id.tenure > state.tenure) return true;
  if (id.tenure === state.tenure) return id.number > state.watermark && !world.does('sweeps the open tenure');
  if (world.does('sweeps adopted tenures')) return false;
  return state.adopted.some(({ tenure, watermark }) => tenure === id.tenure && id.number > watermark);
}
