import { randomBytes } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { CompactionLimits } from '../../../agent/protect/compaction.ts';
import type { PublishedPoint } from '../../../agent/protect/protect-machine.ts';
import { MachineState } from '../../../agent/state/machine-state.ts';
import type { Credit } from '../../../agent/vigilance/compaction-credit.ts';
import { rootFingerprint } from '../../../crypto/root-fingerprint.ts';
import { isMostlyDead } from '../../../replica/compaction.ts';
import { findGarbage } from '../../../replica/garbage.ts';
import { segmentIdOf, segmentKey } from '../../../replica/names.ts';
import { openRepository } from '../../../replica/open-repository.ts';
import { prunePoints } from '../../../replica/prune.ts';
import { sweep } from '../../../replica/sweep.ts';
import { type MemoryGate, type MemoryOutcome, type MemoryStore, openMemoryTarget } from '../../fakes/memory-target.ts';
import { type ModelDisk, plainStyle } from '../../fakes/model-disk.ts';
import type { ModelMachine } from '../../fakes/model-machine.ts';
import { memorySite, workersOfFile } from '../../rig/memory-site.ts';
import { type ReplicaRig, type RigOptions, wrapOnly } from '../../rig/replica-rig.ts';

const block = 65_536;
const blocks = 200;
const hourMs = 3_600_000;
const never = new AbortController().signal;
const generous: CompactionLimits = { share: 10, bytesPerRunMax: 2 ** 30 };
const off: CompactionLimits = { share: 0, bytesPerRunMax: 2 ** 30 };

const workers = workersOfFile();
let store: MemoryStore;
let rig: ReplicaRig;
let machine: ModelMachine;
let disk: ModelDisk;
let nowMs: number;
/** Content at each point. */
let known: Map<number, Uint8Array>;

beforeEach(() => begin(true));
afterEach(() => rig[Symbol.asyncDispose]());

async function begin(tracks: boolean): Promise<void> {
  nowMs = Date.UTC(2026, 2, 1, 19, 30);
  ({ store, rig, machine } = await memorySite(workers(), () => nowMs));
  disk = machine.addDisk('system', blocks * block - 700, { ...plainStyle, tracks });
  disk.write(0, randomBytes(150 * block));
  machine.attachments.set('nvram', randomBytes(9_000));
  known = new Map();
}

async function sync(options: Partial<RigOptions> = {}): Promise<PublishedPoint> {
  nowMs += hourMs;
  const content = disk.content.bytes();
  const published = await rig.protect(machine, { segmentBytes: 1_000_000, compaction: generous, ...options });
  known.set(published.point, content);
  return published;
}

const write = (at: number, count = 1): void => disk.write(at * block, randomBytes(count * block));

/** Points of 20:30 to 22:30: at the end a segment of the second has one live block of eleven, and one of the first a few. */
async function liveUntilNight(options: Partial<RigOptions> = {}): Promise<void> {
  await sync(options);
  write(0, 10);
  write(90);
  await sync(options);
  write(0, 10);
  write(14, 60);
  await sync(options);
  write(0);
}

async function chainNow(): Promise<{ readonly dead: readonly string[]; readonly points: readonly number[] }> {
  using reader = await rig.open();
  const { segments, points } = reader.replica.chain.state;
  return { dead: [...segments.values()].filter(isMostlyDead).map(segmentKey), points: [...points.keys()] };
}

function credit(): Credit | null {
  using state = new MachineState(rig.stateFolder, 'machine');
  return state.trackRecord.compaction;
}

async function expectRestores(): Promise<void> {
  for (const point of (await chainNow()).points) {
    const restored = await rig.restore(point, 'system');
    expect(Buffer.compare(restored, known.get(point) ?? new Uint8Array()), `point ${point}`).toBe(0);
  }
}

/** All points but the newest go, and what nothing needs then. Keys of the segments that are left. */
async function segmentsAfterPrune(): Promise<readonly string[]> {
  const repo = await openRepository(rig.target, rootFingerprint(rig.root.publicKey), never);
  const pruner = { agent: rig.agent, now: rig.now, choose: async () => (await chainNow()).points.slice(0, -1) };
  await prunePoints(repo, rig.machineId, pruner, never);
  await sweep(rig.target, findGarbage(repo, rig.machineId, never), never);
  const ids = store.names.map((name) => segmentIdOf(name, rig.machineId)).filter((id) => id !== null);
  return ids.map(segmentKey);
}

const isSegment = (name: string): boolean => segmentIdOf(name, rig.machineId) !== null;

describe('the last run of a day', () => {
  it('sends the rest of mostly dead segments again, from the disk, and they go with the older points', async () => {
    await liveUntilNight();
    const { dead } = await chainNow();
    expect(dead.length).toBeGreaterThan(0);
    let downloads = 0;
    const gate: MemoryGate = async ({ kind, name }): Promise<MemoryOutcome> => {
      if (kind === 'get' && isSegment(name)) downloads++;
      return { kind: 'done' };
    };
    const published = await sync({ target: openMemoryTarget(store, gate) });
    expect(published.compactedSegments).toBe(dead.length);
    expect(downloads, 'nothing is read back from the bucket').toBe(0);
    expect(published.manifest.changedBytes, 'what was sent again did not change').toBe(block);
    expect(published.manifest.disks[0]?.fullReadReason).toBe('');
    expect(published.manifest.readBytes).toBeLessThan(40 * block);
    expect(credit()?.sentBytes).toBeGreaterThan(block);
    await expectRestores();
    const left = await segmentsAfterPrune();
    expect(left.filter((key) => dead.includes(key))).toEqual([]);
    await expectRestores();
  });

  it('moves a page that is alone in its segment, too, by looking at a block below it', async () => {
    await sync();
    write(0, 10);
    // Its leaf is written anew, and holds no block of this segment.
    disk.discard(130 * block, block);
    await sync();
    write(0, 10);
    await sync();
    write(0);
    const { dead } = await chainNow();
    expect((await sync()).compactedSegments).toBe(dead.length);
    const left = await segmentsAfterPrune();
    expect(left.filter((key) => dead.includes(key))).toEqual([]);
    await expectRestores();
  });

  it('does nothing of it where compaction is off, and they stay', async () => {
    await liveUntilNight({ compaction: off });
    const { dead } = await chainNow();
    expect((await sync({ compaction: off })).compactedSegments).toBe(0);
    expect(await segmentsAfterPrune()).toEqual(expect.arrayContaining([...dead]));
  });

  it('does so for an agent that may not unwrap keys, and reads nothing but its chain', async () => {
    const writeOnly = { access: 'write-only', provider: wrapOnly(rig.provider) } as const;
    await liveUntilNight(writeOnly);
    const { dead } = await chainNow();
    expect((await sync(writeOnly)).compactedSegments).toBe(dead.length);
    await expectRestores();
    const left = await segmentsAfterPrune();
    expect(left.filter((key) => dead.includes(key))).toEqual([]);
  });

  it('sends no more than earlier runs left for it, and than a run may', async () => {
    await liveUntilNight({ compaction: { share: 1e-6, bytesPerRunMax: 2 ** 30 } });
    expect((await sync()).compactedSegments).toBe(0);
    await rig[Symbol.asyncDispose]();
    await begin(true);
    const little: CompactionLimits = { share: 10, bytesPerRunMax: 3 * block };
    await liveUntilNight({ compaction: little });
    const { dead } = await chainNow();
    const published = await sync({ compaction: little });
    expect(published.compactedSegments).toBeGreaterThan(0);
    expect(published.compactedSegments).toBeLessThan(dead.length);
    expect(published.manifest.uploadedBytes).toBeLessThan(6 * block);
    await expectRestores();
  });

  it('compacts a disk without tracking by the way, for it reads all of it', async () => {
    await rig[Symbol.asyncDispose]();
    await begin(false);
    await liveUntilNight();
    const { dead } = await chainNow();
    const published = await sync();
    expect(published.compactedSegments).toBe(dead.length);
    expect(published.manifest.changedBytes).toBe(block);
    await expectRestores();
    const left = await segmentsAfterPrune();
    expect(left.filter((key) => dead.includes(key))).toEqual([]);
  });
});

it('runs that are not the last of their day compact nothing, and one does that comes a day after the last', async () => {
  await liveUntilNight();
  nowMs -= 6 * hourMs;
  expect((await sync()).compactedSegments).toBe(0);
  nowMs += 30 * hourMs;
  expect((await sync()).compactedSegments).toBeGreaterThan(0);
});

it('a block that is not what the map says is no block to send again: the disk is read whole, and the reason is shown', async () => {
  await liveUntilNight();
  // Behind the tracking's back, in the segment of the second point.
  disk.content.write(90 * block + 5, Uint8Array.of(1, 2, 3));
  const published = await sync();
  expect(published.manifest.disks[0]?.fullReadReason).toMatch(/^resync: spot check: block 90 of disk system/);
  expect(published.alarms).toMatchObject([{ kind: 'tracking' }]);
  await expectRestores();
});

it('a run that breaks at any put loses no point, and the next one compacts what it had not', async () => {
  await liveUntilNight();
  const { dead } = await chainNow();
  const attempt = async (failing: number): Promise<boolean> => {
    let puts = 0;
    const gate: MemoryGate = async ({ kind }) =>
      kind === 'put' && puts++ === failing ? { kind: failing % 2 === 0 ? 'lost' : 'unanswered' } : { kind: 'done' };
    try {
      await sync({ target: openMemoryTarget(store, gate) });
      return true;
    } catch {
      // At the same hour once more, as if the run had been started again at once.
      nowMs -= hourMs;
      return false;
    }
  };
  let failing = 0;
  while (!(await attempt(failing))) failing++;
  expect(failing).toBeGreaterThan(2);
  const newest = (await chainNow()).points.at(-1) ?? 0;
  known.set(newest, disk.content.bytes());
  await expectRestores();
  const left = await segmentsAfterPrune();
  expect(left.filter((key) => dead.includes(key))).toEqual([]);
});
