import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { Config } from '../../../agent/config/config-schema.ts';
import type { Logger } from '../../../agent/log.ts';
import { holdPoint } from '../../../agent/retention/hold-point.ts';
import { sha256 } from '../../../crypto/suite.ts';
import type { Birth } from '../../../replica/control.ts';
import { findGarbage } from '../../../replica/garbage.ts';
import { segmentName } from '../../../replica/names.ts';
import { pinsPrefix } from '../../../replica/pins.ts';
import { OpenReplica } from '../../../restore/open-point.ts';
import { AccessDenied } from '../../../storage-targets/errors.ts';
import { MemoryStore, openMemoryTarget } from '../../fakes/memory-target.ts';
import { machineId, never, publish, SmallRepository } from '../../protocol/small-repository.ts';

const dayMs = 24 * 3_600_000;

let nowMs: number;
let store: MemoryStore;
let repository: SmallRepository;
let points: readonly number[];
let warnings: string[];

beforeEach(async () => {
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
  nowMs = Date.UTC(2026, 0, 1);
  store = new MemoryStore();
  store.now = () => nowMs;
  warnings = [];
  repository = new SmallRepository(store);
  points = await publishThree();
});
afterEach(() => vi.useRealTimers());

/** Each replaces all of the one before. */
async function publishThree(): Promise<readonly number[]> {
  const tenure = await repository.begin();
  const seqs: number[] = [];
  for (let before: Birth | null = null; seqs.length < 3; ) {
    const id = tenure.nextSegment();
    const bytes = new TextEncoder().encode(`segment ${id.number}`);
    repository.put(segmentName(machineId, id), bytes);
    const birth: Birth = { ...id, size: bytes.length, units: 1, sha256: sha256(bytes) };
    seqs.push((await publish(tenure, [birth], before === null ? [] : [{ ...before, units: 1 }])).seq);
    before = birth;
  }
  return seqs;
}

const first = (): number => points[0] ?? 0;
const pins = (): readonly string[] => store.names.filter((name) => name.startsWith(pinsPrefix(machineId)));
const hold = async (target = openMemoryTarget(store), point = first()): Promise<AsyncDisposable> => {
  const replica = await OpenReplica.open(await repository.open(target), machineId, [], never);
  return await holdPoint(replica, point, context());
};

function context(): Parameters<typeof holdPoint>[2] {
  const config = { repository: { target: 'filesystem' }, logging: { file: 'log' } } as Config;
  const logger = { warn: (_: object, what: string) => warnings.push(what) } as unknown as Logger;
  return { signal: never, config: () => config, logger: () => logger };
}

async function garbageSegments(): Promise<number> {
  let count = 0;
  for await (const { kind } of findGarbage(await repository.open(), machineId, never)) if (kind === 'segment') count++;
  return count;
}

describe('a point that is read', () => {
  it('is kept from sweeps though it is pruned meanwhile, and no longer than it is read', async () => {
    const held = await hold();
    await repository.append({ type: 'prune', points: [first()] });
    expect(await garbageSegments()).toBe(0);
    await held[Symbol.asyncDispose]();
    expect(pins()).toEqual([]);
    expect(await garbageSegments()).toBe(1);
  });

  it('is held anew each day, for as long as it takes', async () => {
    await using _held = await hold();
    await repository.append({ type: 'prune', points: [first()] });
    for (let day = 0; day < 5; day++) {
      nowMs += dayMs;
      await vi.advanceTimersByTimeAsync(dayMs);
      await vi.waitFor(() => expect(pins()).toHaveLength(day + 2));
    }
    expect(await garbageSegments()).toBe(0);
  });

  it('is refused where it was pruned before the pin was there, and no pin stays', async () => {
    const replica = await OpenReplica.open(await repository.open(), machineId, [], never);
    await repository.append({ type: 'prune', points: [first()] });
    await expect(holdPoint(replica, first(), context())).rejects.toThrow(/no recovery point 2 any more: it was pruned/);
    expect(pins()).toEqual([]);
  });

  it('is read all the same where no pin may be put, and the log says so', async () => {
    const denied = { ...openMemoryTarget(store), putIfAbsent: () => Promise.reject(new AccessDenied('no puts here')) };
    await using _held = await hold(denied);
    expect(warnings).toEqual(['the point is not pinned while it is read']);
    expect(pins()).toEqual([]);
  });
});
