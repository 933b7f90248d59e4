import type { ListedObject, StorageTarget } from '../storage-targets/storage-target.ts';
import { type Chain, type CheckedEntry, openChain, replayWholeChain } from './chain.ts';
import { ChainState, isNeeded, isSummaryDue } from './chain-state.ts';
import type { SegmentLife } from './control.ts';
import {
  chainPrefix,
  controlName,
  controlPrefix,
  controlSeqOf,
  invertedNumberOf,
  segmentIdOf,
  segmentKey,
  segmentsPrefix,
} from './names.ts';
import type { OpenRepository } from './open-repository.ts';
import { isHolding, type Pin, readPins } from './pins.ts';

/**
 * What nobody needs of a replica, found without any key: docs/format.md §8.4. Garbage stays garbage (rule R6), so it may be deleted
 * arbitrarily late, twice, or by a process that slept meanwhile.
 */

export interface Garbage extends ListedObject {
  readonly kind: 'segment' | 'control' | 'pin';
}

export const dayMs = 24 * 3_600_000;

/**
 * Reads the whole chain, checks it with every summary, and lists the replica's objects: one GET for each entry, one LIST for each thousand
 * objects. Throws for a chain that is damaged or breaks the protocol; nothing is garbage then.
 */
export async function* findGarbage(
  repo: OpenRepository,
  machineId: Uint8Array,
  signal: AbortSignal,
): AsyncGenerator<Garbage> {
  const { target } = repo;
  const chain = await openChain(repo, machineId, signal);
  if (chain === null) return;
  // The chain is read before the pins (rule R8): whoever saw its point there has a pin that is seen here.
  const nowMs = (await target.now(signal)).getTime();
  const pins = await readPins(target, machineId, signal);
  for (const pin of pins) if (!isHolding(pin, nowMs)) yield pinGarbage(pin);
  const guarded = new Set([
    ...chain.state.points.keys(),
    ...pins.filter((pin) => isHolding(pin, nowMs)).map(({ point }) => point),
    ...(await underTheFloor(repo, machineId, nowMs, signal)).keys(),
  ]);
  const known = await replayFor(repo, chain, guarded, signal);
  yield* garbageOf(
    target,
    segmentsPrefix(machineId),
    'segment',
    (name) => isGarbageSegment(name, chain, known),
    signal,
  );
  const isGarbageControl = (name: string) =>
    (controlSeqOf(name, machineId) ?? Infinity) <= chain.head.seq && !known.controls.has(name);
  yield* garbageOf(target, controlPrefix(machineId), 'control', isGarbageControl, signal);
}

/** Entries that the store has had for less time than the root key's floor says: points among them are kept, whoever pruned them. */
async function underTheFloor(
  { target, trust }: OpenRepository,
  machineId: Uint8Array,
  nowMs: number,
  signal: AbortSignal,
): Promise<ReadonlyMap<number, number>> {
  return await entriesSince(target, machineId, nowMs, trust.retentionFloorDays * dayMs, signal);
}

/** When the store got the entries that it has had for less than `ms`. Nothing is asked for none. */
export async function entriesSince(
  target: StorageTarget,
  machineId: Uint8Array,
  nowMs: number,
  ms: number,
  signal: AbortSignal,
): Promise<ReadonlyMap<number, number>> {
  const modifiedMs = new Map<number, number>();
  if (ms === 0) return modifiedMs;
  const prefix = chainPrefix(machineId);
  for await (const { name, modified } of target.list(prefix, {}, signal)) {
    const seq = invertedNumberOf(name, prefix);
    if (seq !== null && modified.getTime() > nowMs - ms) modifiedMs.set(seq, modified.getTime());
  }
  return modifiedMs;
}

/** What the chain says, as far as it matters to points that are guarded. */
interface Known {
  readonly state: ChainState;
  readonly guarded: readonly { readonly seq: number }[];
  /** Segments that no retained point needed at some summary, but a guarded one does. */
  readonly held: ReadonlySet<string>;
  /** Names of the control objects of entries. */
  readonly controls: ReadonlySet<string>;
}

async function replayFor(
  repo: OpenRepository,
  chain: Chain,
  points: ReadonlySet<number>,
  signal: AbortSignal,
): Promise<Known> {
  const guarded = [...points].sort((a, b) => a - b).map((seq) => ({ seq }));
  const held = new Set<string>();
  const controls = new Set<string>();
  const state = new ChainState();
  const hold = (life: SegmentLife) => {
    if (isNeeded(life, guarded)) held.add(segmentKey(life));
  };
  for await (const entry of replayWholeChain(repo, chain, state, signal)) {
    const name = controlObjectOf(entry);
    if (name !== null) controls.add(name);
    if (isSummaryDue(entry.seq)) state.forgetUnneeded(hold);
  }
  return { state, guarded, held, controls };
}

function controlObjectOf({ machineId, seq, control }: CheckedEntry): string | null {
  return 'inline' in control ? null : controlName(machineId, seq, control.sha256);
}

function isGarbageSegment(name: string, { machineId }: Chain, { state, guarded, held }: Known): boolean {
  const id = segmentIdOf(name, machineId);
  if (id === null) return false;
  const life = state.segments.get(segmentKey(id));
  if (life !== undefined) return !isNeeded(life, guarded);
  return !held.has(segmentKey(id)) && !state.mayYetBeBorn(id);
}

async function* garbageOf(
  target: StorageTarget,
  prefix: string,
  kind: Garbage['kind'],
  isGarbage: (name: string) => boolean,
  signal: AbortSignal,
): AsyncGenerator<Garbage> {
  for await (const object of target.list(prefix, {}, signal)) {
    if (isGarbage(object.name)) yield { ...object, kind };
  }
}

function pinGarbage({ name, modifiedMs }: Pin): Garbage {
  return { name, bytes: 0, modified: new Date(modifiedMs), kind: 'pin' };
}
