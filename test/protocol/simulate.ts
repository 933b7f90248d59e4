import {
  applyEntry,
  ChainBroken,
  openChain,
  ReplicaForked,
  ReplicaRolledBack,
  verifyWholeChain,
} from '../../replica/chain.ts';
import { ChainInvalid, ChainState } from '../../replica/chain-state.ts';
import { encodeControl } from '../../replica/control.ts';
import { ControlTampered } from '../../replica/control-object.ts';
import { FormatInvalid, sameBytes } from '../../replica/encoding.ts';
import { segmentName } from '../../replica/names.ts';
import { type OpenRepository, openRepository } from '../../replica/open-repository.ts';
import { pinsPrefix } from '../../replica/pins.ts';
import { Fenced } from '../../replica/put-once.ts';
import { StoreUnavailable } from '../../storage-targets/errors.ts';
import { openMemoryTarget } from '../fakes/memory-target.ts';
import { runCopier } from './copier.ts';
import { runReader } from './point-reader.ts';
import { runPruner, sweepOne } from './pruner.ts';
import type { Actor } from './scheduler.ts';
import { type Truth, Violation } from './truth.ts';
import { type AgentState, type Counters, type Misdeed, World } from './world.ts';
import { runAgent } from './writer.ts';

export interface Outcome {
  readonly violation: Violation | null;
  readonly counters: Counters;
  readonly entries: number;
  readonly steps: number;
}

const never = new AbortController().signal;

/** One history of several agents, pruners and readers of one machine, decided by the seed. */
export async function simulate(seed: number, misdeeds: readonly Misdeed[] = []): Promise<Outcome> {
  const world = new World(seed, new Set(misdeeds));
  await world.found();
  spawnAll(world);
  await world.scheduler.run();
  if (world.violation === null) {
    await judge(world).catch((error: unknown) => world.report(asViolation(error)));
  }
  const { violation, counters, truth, scheduler } = world;
  return { violation, counters, entries: truth.entries.length, steps: scheduler.steps };
}

export function spawnAll(world: World): void {
  for (const number of [1, 2]) spawnAgent(world, `agent${number}`, world.agent(number), 3);
  if (world.random.chance(0.5)) spawnTwins(world);
  else spawnClones(world);
  for (const name of ['pruner1', 'pruner2']) {
    const agent = world.agent(world.random.pick([3, 4]));
    spawn(world, name, 5, (repo) => runPruner(world, repo, agent));
  }
  if (world.random.chance(0.5))
    for (const name of ['copier1', 'copier2'])
      spawn(world, name, 3, (repo, actor) => runCopier(world, repo, world.copyTargetOf(actor)));
  for (const name of ['reader1', 'reader2']) spawn(world, name, 4, (repo) => runReader(world, repo));
}

/** Two hosts with one key and one mark, each with randomness of its own. */
function spawnClones(world: World): void {
  const original = world.agent(0);
  for (const name of ['clone1', 'clone2']) spawnAgent(world, name, { ...original }, 3);
}

/** A host that is cloned while it runs, after it has read the chain: both go on with the same random numbers. */
function spawnTwins(world: World): void {
  spawn(world, 'twins', 1, async (repo) => {
    const delay = world.random.below(80);
    for (let i = 0; i < delay; i++) await repo.target.now(never);
    const atOnce = { ...repo, target: world.bareTarget() };
    const agent = world.agent(0, true);
    for (const name of ['twin1', 'twin2']) {
      const chain = await openChain(atOnce, world.machineId, never);
      spawn(world, name, 1, (own) => runAgent(world, own, name, { ...agent }, chain));
    }
  });
}

function spawnAgent(world: World, name: string, agent: AgentState, runsMax: number): void {
  const run = async (repo: OpenRepository): Promise<void> =>
    await runAgent(world, repo, name, agent, await openChain(repo, world.machineId, never));
  // After a crash a process starts again on the same host, with what the host has kept.
  spawn(world, name, runsMax, run, () => world.random.chance(0.6));
}

function spawn(
  world: World,
  name: string,
  runsMax: number,
  run: (repo: OpenRepository, actor: Actor) => Promise<void>,
  restarts: () => boolean = () => false,
): void {
  const runs = 1 + world.random.below(runsMax);
  const life = async (actor: Actor): Promise<void> => {
    const repo = await openRepository(world.targetOf(actor), world.pinnedRoot, never);
    for (let i = 0; i < runs && world.violation === null; i++) {
      await run(repo, actor).catch((error: unknown) => allow(world, error));
    }
  };
  const guarded = (actor: Actor): Promise<void> => life(actor).catch((error: unknown) => allow(world, error));
  world.scheduler.spawn(name, guarded, () => {
    if (restarts()) spawn(world, name, runsMax, run);
  });
}

/** An actor may be fenced, and the store may be away; anything else is a broken promise. */
function allow(world: World, error: unknown): void {
  if (error instanceof Fenced) world.counters.fenced++;
  else if (!(error instanceof StoreUnavailable)) world.report(asViolation(error));
}

export function asViolation(error: unknown): Violation {
  if (error instanceof Violation) return error;
  const refusals = [ChainInvalid, ChainBroken, ReplicaForked, ReplicaRolledBack, FormatInvalid, ControlTampered];
  const refused = refusals.some((refusal) => error instanceof refusal);
  const detail = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  return new Violation(refused ? 'chain refused' : 'error', detail);
}

/** What must hold when all have ended. */
async function judge(world: World): Promise<void> {
  for (const attempt of world.fencedAttempts) {
    if (world.truth.attempts.has(attempt)) throw new Violation('fenced, yet published', attempt);
  }
  const repo = await openRepository(openMemoryTarget(world.store), world.pinnedRoot, never);
  const chain = await openChain(repo, world.machineId, never);
  if (chain === null) return;
  await verifyWholeChain(repo, chain, never);
  const replayed = new ChainState();
  for (const entry of world.truth.entries) {
    await applyEntry(repo, replayed, { ...entry, isVoid: false }, never);
    if (entry.body.type === 'publish') world.truth.checkLives(replayed, entry.seq);
  }
  if (!sameBytes(summaryBytes(replayed), summaryBytes(chain.state))) {
    throw new Violation('summary', 'the state that was opened is not what the entries amount to');
  }
  await judgeCopy(world, repo);
  const pins = world.store.names.filter((name) => name.startsWith(pinsPrefix(world.machineId)));
  await repo.target.delete(pins, never);
  // Whatever held something holds it no longer.
  world.store.now = () => Date.parse('2200-01-01');
  await sweepOne(world, repo);
  checkNothingIsLeft(world.machineId, world.truth);
}

/** A copy that nothing disturbs ends what others began. */
async function judgeCopy(world: World, repo: OpenRepository): Promise<void> {
  const to = openMemoryTarget(world.copy);
  await runCopier(world, repo, to, { sweeps: false });
  const copied = await openRepository(to, world.pinnedRoot, never);
  const chain = await openChain(copied, world.machineId, never);
  if (chain?.head.seq !== world.truth.entries.length)
    throw new Violation('copy lost a segment', 'its chain is shorter');
  await verifyWholeChain(copied, chain, never);
}

/** The canonical bytes: two summaries say the same exactly when these are the same. */
function summaryBytes(state: ChainState): Uint8Array {
  const control = { births: [], deaths: [], summary: state.summary() };
  return encodeControl(control, { publish: false, summary: true });
}

/** After a sweep without pins: what retained points use, what may yet be published, and nothing else. */
export function checkNothingIsLeft(machineId: Uint8Array, truth: Truth): void {
  const used = new Set<string>();
  for (const slots of truth.points.values()) {
    for (const unit of slots.values()) used.add(segmentName(machineId, unit));
  }
  for (const name of truth.segmentNames) {
    const [tenure, number] = [Number(name.slice(-27, -11)), Number(name.slice(-10))];
    if (used.has(name) || truth.open.some((each) => each.tenure === tenure && number > each.watermark)) continue;
    throw new Violation('garbage kept', name);
  }
}
