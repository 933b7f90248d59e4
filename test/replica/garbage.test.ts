import { beforeEach, describe, expect, it } from 'vitest';
import { sha256 } from '../../crypto/suite.ts';
import type { Birth } from '../../replica/control.ts';
import { findGarbage } from '../../replica/garbage.ts';
import { chainEntryName, controlPrefix, segmentName } from '../../replica/names.ts';
import { pinsPrefix, putPin } from '../../replica/pins.ts';
import { sweep } from '../../replica/sweep.ts';
import type { Tenure } from '../../replica/tenure.ts';
import { MemoryStore, openMemoryTarget } from '../fakes/memory-target.ts';
import { appendEntry } from '../protocol/append-entry.ts';
import { machineId, never, publish, SmallRepository } from '../protocol/small-repository.ts';

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;

let nowMs: number;
let store: MemoryStore;
let repository: SmallRepository;
let tenure: Tenure;
/** One segment for each publish, which the next one leaves wholly dead. */
let previous: Birth | null;

beforeEach(async () => {
  nowMs = Date.UTC(2026, 0, 1);
  store = new MemoryStore({ objectLock: true });
  store.now = () => nowMs;
  repository = new SmallRepository(store);
  tenure = await repository.begin();
  previous = null;
});

async function putSegment(retainUntil: Date | null = null): Promise<Birth> {
  const id = tenure.nextSegment();
  const bytes = new TextEncoder().encode(`segment ${id.number}`);
  store.put(segmentName(machineId, id), bytes, sha256(bytes), retainUntil);
  return { ...id, size: bytes.length, units: 1, sha256: sha256(bytes) };
}

async function publishOne(retainUntil: Date | null = null): Promise<number> {
  const birth = await putSegment(retainUntil);
  const deaths = previous === null ? [] : [{ tenure: previous.tenure, number: previous.number, units: 1 }];
  previous = birth;
  return (await publish(tenure, [birth], deaths)).seq;
}

async function garbage(): Promise<readonly string[]> {
  const names: string[] = [];
  for await (const { name } of findGarbage(await repository.open(), machineId, never)) names.push(name);
  return names;
}

const segmentOf = (point: number): string => segmentName(machineId, { tenure: tenure.id, number: point - tenure.id });

describe('what a sweeper takes for garbage', () => {
  it('is what only pruned points used', async () => {
    const points = [await publishOne(), await publishOne(), await publishOne()];
    expect(await garbage()).toEqual([]);
    await repository.append({ type: 'prune', points: points.slice(0, 1) });
    expect(await garbage()).toEqual([segmentOf(points[0] ?? 0)]);
  });

  it('is still known after summaries that no longer speak of it, and so is what a pin or the floor keeps', async () => {
    const points: number[] = [];
    for (let i = 0; i < 20; i++) points.push(await publishOne());
    await repository.append({ type: 'prune', points: points.slice(0, 10) });
    for (let i = 0; i < 130; i++) await repository.append({ type: 'lock', generation: 0, untilMs: 0 });
    const [third = 0] = points.slice(2, 3);
    await putPin(openMemoryTarget(store), machineId, third, 1, never);
    const kept = segmentOf(third);
    expect(await garbage()).toEqual(
      points
        .slice(0, 10)
        .map(segmentOf)
        .filter((name) => name !== kept),
    );
    nowMs += 2 * hourMs;
    expect(await garbage()).toContain(kept);
    expect((await garbage()).filter((name) => name.startsWith(pinsPrefix(machineId)))).toHaveLength(1);
    repository.state({ retentionFloorDays: 1 });
    expect((await garbage()).filter((name) => !name.startsWith(pinsPrefix(machineId)))).toEqual([]);
  });

  it('is a segment that was put and not published, once a publish left it behind', async () => {
    const abandoned = await putSegment();
    expect(await garbage()).toEqual([]);
    await publishOne();
    expect(await garbage()).toEqual([segmentName(machineId, abandoned)]);
  });

  it('is no object of another name or of another machine', async () => {
    await publishOne();
    const mine = `machines/${'b2'.repeat(16)}`;
    for (const name of [`${mine}/segments/notes.txt`, `${mine}/pins/note`, `${mine}/control/x`, `${mine}/future/1`])
      repository.put(name, new Uint8Array(1));
    expect(await garbage()).toEqual([]);
  });

  it('is a control object that no entry names, when its entry is another', async () => {
    await publishOne();
    const orphan = (seq: number) => `${controlPrefix(machineId)}${String(seq).padStart(16, '0')}-${'0'.repeat(32)}`;
    repository.put(orphan(2), new Uint8Array(1));
    repository.put(orphan(3), new Uint8Array(1));
    expect(await garbage()).toEqual([orphan(2)]);
  });
});

describe('against an agent that lies', () => {
  it('the floor of the root key keeps every younger point, though all were pruned', async () => {
    repository.state({ retentionFloorDays: 7 });
    const old = [await publishOne(), await publishOne()];
    nowMs += 8 * dayMs;
    const young = [await publishOne(), await publishOne()];
    const newest = await publishOne();
    await repository.append({ type: 'prune', points: [...old, ...young] });
    // The newest of the old ones is what the first young point replaced, so nobody under the floor needs it.
    expect(await garbage()).toEqual(old.map(segmentOf));
    nowMs += 8 * dayMs;
    expect(await garbage()).toEqual([...old, ...young].map(segmentOf));
    expect(await garbage()).not.toContain(segmentOf(newest));
  });

  it('a false count of the dead costs no point before it', async () => {
    const points = [await publishOne(), await publishOne()];
    // Says that nothing of the segment in use is left, without replacing it.
    const lie = await publish(tenure, [], [{ tenure: tenure.id, number: previous?.number ?? 0, units: 1 }]);
    await repository.append({ type: 'prune', points: points.slice(0, 1) });
    expect(await garbage()).toEqual([segmentOf(points[0] ?? 0)]);
    repository.state({ retentionFloorDays: 30 });
    await repository.append({ type: 'prune', points: points.slice(1) });
    expect(await garbage()).toEqual([]);
    expect(lie.seq).toBeGreaterThan(points[1] ?? 0);
  });

  it('a head that changes while the chain is read is an error, and nothing is deleted', async () => {
    const points = [await publishOne(), await publishOne()];
    await repository.append({ type: 'prune', points: points.slice(0, 1) });
    const fork = store.copy();
    const head = chainEntryName(machineId, 5);
    await repository.append({ type: 'lock', generation: 1, untilMs: 0 });
    const { repo, chain } = await repository.chain(fork);
    await appendEntry(repo, chain, { type: 'lock', generation: 2, untilMs: 0 }, repository.otherAgent);
    // The store is asked for its clock once the chain was read.
    const target = openMemoryTarget(store, async ({ kind }) => {
      if (kind === 'now') store.replace(head, fork.bytesOf(head));
      return { kind: 'done' };
    });
    await expect(findGarbage(await repository.open(target), machineId, never).next()).rejects.toThrow(
      'the entries changed while they were read',
    );
  });

  it('a summary that leaves something out is an error, and nothing is deleted', async () => {
    for (let i = 0; i < 70; i++) await publishOne();
    const name = chainEntryName(machineId, 64);
    const bytes = Buffer.from(store.bytesOf(name) ?? []);
    bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1;
    store.replace(name, bytes);
    await expect(garbage()).rejects.toThrow(name);
  });
});

it('a sweep deletes it, and counts what is under object lock yet', async () => {
  const points = [await publishOne(new Date(nowMs + dayMs)), await publishOne(), await publishOne()];
  await repository.append({ type: 'prune', points: points.slice(0, 2) });
  const target = openMemoryTarget(store);
  const run = async () => await sweep(target, findGarbage(await repository.open(), machineId, never), never);
  expect(await run()).toEqual({ objects: 1, bytes: 9, lockedObjects: 1, lockedBytes: 9 });
  expect(await garbage()).toEqual([segmentOf(points[0] ?? 0)]);
  nowMs += 2 * dayMs;
  expect(await run()).toEqual({ objects: 1, bytes: 9, lockedObjects: 0, lockedBytes: 0 });
  expect(await run()).toEqual({ objects: 0, bytes: 0, lockedObjects: 0, lockedBytes: 0 });
});
