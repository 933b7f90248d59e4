import { beforeEach, expect, it } from 'vitest';
import { sha256 } from '../../crypto/suite.ts';
import type { Birth } from '../../replica/control.ts';
import { segmentName } from '../../replica/names.ts';
import { findPrunedPoints, type PrunedPoint } from '../../replica/pruned-points.ts';
import { MemoryStore } from '../fakes/memory-target.ts';
import { machineId, never, publish, SmallRepository } from '../protocol/small-repository.ts';

const dayMs = 24 * 3_600_000;

let store: MemoryStore;
let repository: SmallRepository;
let nowMs: number;
/** A point a day; each alone uses its segment. */
let points: { readonly seq: number; readonly atMs: number; readonly segment: string }[];

beforeEach(async () => {
  store = new MemoryStore();
  nowMs = Date.UTC(2026, 0, 1);
  store.now = () => nowMs;
  repository = new SmallRepository(store);
  const tenure = await repository.begin();
  points = [];
  let last: Birth | null = null;
  for (let day = 0; day < 5; day++) {
    nowMs += dayMs;
    const id = tenure.nextSegment();
    const bytes = new TextEncoder().encode(`segment ${id.number}`);
    const segment = segmentName(machineId, id);
    store.put(segment, bytes, sha256(bytes), null);
    const birth = { ...id, size: bytes.length, units: 1, sha256: sha256(bytes) };
    const { seq } = await publish(tenure, [birth], last === null ? [] : [{ ...last, units: 1 }]);
    last = birth;
    points.push({ seq, atMs: nowMs, segment });
  }
  // By a thief, who leaves the newest.
  await repository.append({ type: 'prune', points: points.slice(0, -1).map(({ seq }) => seq) });
});

async function found(lockedDays: number): Promise<readonly PrunedPoint[]> {
  const { repo, chain } = await repository.chain();
  return (await findPrunedPoints(repo, chain, { lockedMs: lockedDays * dayMs }, never)).points;
}

it('are those that the lock of their store still keeps, and until when', async () => {
  nowMs += dayMs / 2;
  expect(await found(3)).toMatchObject(
    points.slice(2, -1).map(({ seq, atMs }) => ({ seq, keptBy: 'lock', untilMs: atMs + 3 * dayMs })),
  );
  expect(await found(0)).toEqual([]);
});

it('are those that the floor keeps, whatever the lock does, and not those that somebody swept', async () => {
  repository.state({ retentionFloorDays: 4 });
  nowMs += dayMs / 2;
  const kept = points.slice(1, -1);
  const byFloor = kept.map(({ seq, atMs }) => ({ seq, keptBy: 'floor', untilMs: atMs + 4 * dayMs }));
  expect(await found(3)).toMatchObject(byFloor);
  store.delete(kept[1]?.segment ?? '');
  expect(await found(3)).toMatchObject([byFloor[0], byFloor[2]]);
});
