import { beforeEach, expect, it } from 'vitest';
import { sha256 } from '../../crypto/suite.ts';
import { openChain } from '../../replica/chain.ts';
import { isNeeded } from '../../replica/chain-state.ts';
import type { Birth } from '../../replica/control.ts';
import { type CopyProgress, copyDescription, copyMachine } from '../../replica/copy-replica.ts';
import { findGarbage } from '../../replica/garbage.ts';
import { segmentName } from '../../replica/names.ts';
import { sweep } from '../../replica/sweep.ts';
import type { Tenure } from '../../replica/tenure.ts';
import { type MemoryGate, MemoryStore, openMemoryTarget } from '../fakes/memory-target.ts';
import { machineId, never, publish, SmallRepository } from '../protocol/small-repository.ts';

let store: MemoryStore;
let repository: SmallRepository;
let tenure: Tenure;
let births: readonly Birth[];

beforeEach(async () => {
  store = new MemoryStore();
  repository = new SmallRepository(store);
  tenure = await repository.begin();
  births = [];
  // Across a summary, so that some control data are objects of their own.
  for (let i = 0; i < 70; i++) await publishOne();
});

/** A point that alone uses its segment. */
async function publishOne(): Promise<number> {
  const id = tenure.nextSegment();
  const bytes = new TextEncoder().encode(`segment ${id.number}`);
  store.put(segmentName(machineId, id), bytes, sha256(bytes), null);
  const birth = { ...id, size: bytes.length, units: 1, sha256: sha256(bytes) };
  const last = births.at(-1);
  births = [...births, birth];
  return (await publish(tenure, [birth], last === undefined ? [] : [{ ...last, units: 1 }])).seq;
}

async function copyTo(
  to: MemoryStore,
  gate?: MemoryGate,
  from?: MemoryGate,
  lockUntil: Date | null = null,
): Promise<CopyProgress> {
  const progress = { segments: 0, bytes: 0, presentSegments: 0 };
  const repo = await repository.open(openMemoryTarget(store, from));
  const target = openMemoryTarget(to, gate);
  await copyDescription(repo, target, never);
  await copyMachine(repo, target, machineId, progress, lockUntil, never);
  return progress;
}

/** Every point that the copy lists has its segment; null where there is no chain yet. */
async function pointsOf(to: MemoryStore): Promise<number | null> {
  if (to.bytesOf('repository') === null) return null;
  const repo = await repository.open(openMemoryTarget(to)).catch(() => null);
  const chain = repo === null ? null : await openChain(repo, machineId, never);
  if (chain === null) return null;
  const points = [...chain.state.points.keys()].map((seq) => ({ seq }));
  for (const life of chain.state.segments.values())
    if (isNeeded(life, points)) expect(to.bytesOf(segmentName(machineId, life))).not.toBeNull();
  return chain.state.points.size;
}

it('is the same repository, object by object; a second copy has nothing to do but look', async () => {
  const to = new MemoryStore();
  expect(await copyTo(to)).toMatchObject({ segments: 70, presentSegments: 0 });
  expect(to.names).toEqual(store.names);
  for (const name of store.names) expect(to.bytesOf(name)).toEqual(store.bytesOf(name));
  await publishOne();
  expect(await copyTo(to)).toMatchObject({ segments: 1, presentSegments: 70 });
  expect(to.names).toEqual(store.names);
});

it('killed at any put it is a replica all the same, and goes on where it was', async () => {
  const to = new MemoryStore();
  for (let puts = 3; to.names.length < store.names.length; puts += 29) {
    let left = puts;
    const gate: MemoryGate = async ({ kind }) => {
      if (kind === 'put' && left-- === 0) throw new Error('killed');
      return { kind: 'done' };
    };
    await copyTo(to, gate).catch((error: Error) => expect(error.message).toBe('killed'));
    await pointsOf(to);
  }
  expect(await pointsOf(to)).toBe(70);
});

it('what was pruned is not copied; what is pruned and swept while it is copied is done without', async () => {
  const points = [...(await repository.chain()).chain.state.points.keys()];
  await repository.append({ type: 'prune', points: points.slice(0, 10) });
  let pruned = false;
  const from: MemoryGate = async ({ kind, name }) => {
    if (!pruned && kind === 'get' && name.includes('/segments/')) {
      pruned = true;
      await repository.append({ type: 'prune', points: points.slice(10, 60) });
      await sweep(openMemoryTarget(store), findGarbage(await repository.open(), machineId, never), never);
    }
    return { kind: 'done' };
  };
  const to = new MemoryStore();
  await copyTo(to, undefined, from);
  expect(pruned).toBe(true);
  expect(await pointsOf(to)).toBe(10);
});

it('what a locked destination had before is locked again with each generation of the source, and not for as long as that claims', async () => {
  const to = new MemoryStore({ objectLock: true });
  let nowMs = 0;
  to.now = () => nowMs;
  await copyTo(to);
  await repository.append({ type: 'lock', generation: 1, untilMs: Number.MAX_SAFE_INTEGER });
  let extended = 0;
  const counting: MemoryGate = async ({ kind }) => {
    if (kind === 'extendRetention') extended++;
    return { kind: 'done' };
  };
  const until = 40 * 24 * 3_600_000;
  await copyTo(to, counting, undefined, new Date(until));
  const once = extended;
  expect(once).toBeGreaterThan(70);
  await copyTo(to, counting, undefined, new Date(until));
  expect(extended, 'not again within a generation').toBe(once);
  nowMs = until - 1;
  for (const name of to.names.filter((each) => each.includes('/segments/'))) expect(() => to.delete(name)).toThrow();
  nowMs = until;
  for (const name of to.names.filter((each) => each.includes('/segments/'))) to.delete(name);
});

it('a segment that was altered in the source does not spread', async () => {
  const name = store.names.find((each) => each.includes('/segments/')) ?? '';
  store.replace(name, new TextEncoder().encode('Segment 1'));
  const to = new MemoryStore();
  await expect(copyTo(to)).rejects.toMatchObject({ code: 'OBJECT_ALTERED', message: expect.stringContaining(name) });
  expect(to.bytesOf(name)).toBeNull();
  expect(await pointsOf(to)).toBeNull();
});

it('a copy that was written to is never overwritten, nor another repository', async () => {
  const to = store.copy();
  const other = await repository.begin(repository.otherAgent, to);
  await publish(other);
  await expect(copyTo(to)).rejects.toMatchObject({ code: 'REPLICA_ROLLED_BACK' });
  for (let i = 0; i < 3; i++) await publishOne();
  const before = to.names.length;
  await expect(copyTo(to)).rejects.toMatchObject({ code: 'REPLICA_FORKED' });
  expect(to.names.length).toBe(before);
  const foreign = new SmallRepository().store;
  await expect(copyTo(foreign)).rejects.toMatchObject({ code: 'REPLICA_FORKED' });
});

it('is no rollback of the source where somebody else copies a longer chain in the meantime', async () => {
  const to = new MemoryStore();
  await copyTo(to);
  let isFirst = true;
  const from: MemoryGate = async ({ kind, name }) => {
    // The chain was listed; before its entries are read, another copier is done with one point more.
    if (kind !== 'get' || !name.includes('/chain/') || !isFirst) return { kind: 'done' };
    isFirst = false;
    await publishOne();
    await copyTo(to);
    return { kind: 'done' };
  };
  await copyTo(to, undefined, from);
  expect(to.names).toEqual(store.names);
  expect(await pointsOf(to)).toBe(71);
});
