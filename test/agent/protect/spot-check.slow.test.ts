import { randomBytes } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { PublishedPoint } from '../../../agent/protect/protect-machine.ts';
import { MachineState } from '../../../agent/state/machine-state.ts';
import { type Lap, shareOf, unverifiedMs, verifiedToMs } from '../../../agent/vigilance/lap.ts';
import type { TrackRecord } from '../../../agent/vigilance/track-record.ts';
import { StoreUnavailable } from '../../../storage-targets/errors.ts';
import { type MemoryOutcome, type MemoryStore, openMemoryTarget } from '../../fakes/memory-target.ts';
import type { ModelDisk } from '../../fakes/model-disk.ts';
import type { ModelMachine } from '../../fakes/model-machine.ts';
import { memorySite, workersOfFile } from '../../rig/memory-site.ts';
import type { ReplicaRig, RigOptions } from '../../rig/replica-rig.ts';

const block = 65_536;
const blocks = 300;
const dayMs = 24 * 3_600_000;
const everyMs = 30 * dayMs;

const workers = workersOfFile();
let store: MemoryStore;
let rig: ReplicaRig;
let machine: ModelMachine;
let disk: ModelDisk;
let nowMs: number;

/** A disk with data in its first hundred blocks and at its end, the last one cut short. */
beforeEach(async () => {
  nowMs = Date.UTC(2026, 2, 1);
  ({ store, rig, machine } = await memorySite(workers(), () => nowMs));
  disk = machine.addDisk('system', blocks * block - 700);
  disk.write(0, randomBytes(100 * block));
  disk.write((blocks - 2) * block, randomBytes(2 * block - 700));
});
afterEach(() => rig[Symbol.asyncDispose]());

async function sync(options: Partial<RigOptions> = {}): Promise<PublishedPoint> {
  return await rig.protect(machine, { segmentBytes: 1_000_000, ...options });
}

function known(): TrackRecord {
  using state = new MachineState(rig.stateFolder, 'machine');
  return state.trackRecord;
}

function lap(): Lap {
  const [first] = known().laps;
  if (first === undefined) throw new Error('no lap');
  return first;
}

/** What the next run checks. */
function nextChecked(): readonly number[] {
  const { ranges } = shareOf(lap(), nowMs, { everyMs, blocksMax: blocks });
  return ranges.flatMap(({ first, end }) => Array.from({ length: end - first }, (_, i) => first + i));
}

const reasonOf = ({ manifest }: PublishedPoint): string => manifest.disks[0]?.fullReadReason ?? 'no disk';

async function expectRestores({ point }: PublishedPoint): Promise<void> {
  expect(Buffer.compare(await rig.restore(point, 'system'), disk.content.bytes())).toBe(0);
}

/** Behind the tracking's back. */
const lies: Readonly<Record<string, (at: number) => void>> = {
  'a block of data': (at) => disk.content.write(at * block + 77, randomBytes(1)),
  'the last block, which the disk cuts short': () => disk.content.write(blocks * block - 701, randomBytes(1)),
  'a block that was data and reads as zero': (at) => disk.content.clear(at * block, block),
  'a block that the map does not have': (at) => disk.content.write(at * block + 5, Uint8Array.of(1)),
};
const places: Readonly<Record<string, number>> = {
  'the last block, which the disk cuts short': blocks - 1,
  'a block that the map does not have': 171,
};

describe('a source whose tracking lies', () => {
  it.each(Object.keys(lies))('about %s is found out when it is checked, resynced, and restored whole', async (what) => {
    const at = places[what] ?? 42;
    await sync();
    nowMs += dayMs;
    await sync();
    lies[what]?.(at);
    let found: PublishedPoint | null = null;
    for (let day = 0; found === null; day++) {
      expect(day, 'not found within one lap').toBeLessThan(30);
      nowMs += dayMs;
      // The last block of a disk is compared in each run.
      const isNext = at === blocks - 1 || nextChecked().includes(at);
      const published = await sync();
      if (reasonOf(published) !== '') found = published;
      expect(found !== null, `day ${day}`).toBe(isNext);
    }
    expect(reasonOf(found)).toMatch(
      new RegExp(`^resync: spot check: block ${at} of disk system \\(at byte ${at * block}\\) is not`),
    );
    await expectRestores(found);
    expect(found.alarms).toMatchObject([{ kind: 'tracking', point: found.point, acknowledged: false }]);
    expect(known().alarms).toEqual(found.alarms);
    expect(verifiedToMs(lap())).toBe(nowMs);

    nowMs += dayMs;
    const next = await sync();
    expect([reasonOf(next), next.alarms]).toEqual(['', []]);
    await expectRestores(next);
  });

  it('is found out in the run where the lie lies beside what changed', async () => {
    await sync();
    nowMs += 3 * dayMs;
    const checked = nextChecked();
    expect(checked.length).toBeGreaterThan(25);
    disk.write((checked[3] ?? 0) * block, randomBytes(2 * block));
    disk.content.write((checked[5] ?? 0) * block, randomBytes(9));
    const published = await sync();
    expect(reasonOf(published)).toMatch(/^resync: spot check: block 5 /);
    await expectRestores(published);
  });

  it('is believed for as long as spot checks are off, and nothing is read for them', async () => {
    await sync();
    const seededMs = nowMs;
    disk.content.write(7 * block, randomBytes(9));
    for (let day = 0; day < 40; day += 10) {
      nowMs += 10 * dayMs;
      const { manifest } = await sync({ spotCheck: { everyMs: 0, bytesPerRunMax: 2 ** 30 } });
      expect(manifest.readBytes).toBe(0);
    }
    expect([verifiedToMs(lap()), lap().owedMs]).toEqual([seededMs, 0]);
  });
});

describe('a source whose tracking is right', () => {
  it('is read once in a lap, the reads are counted, and nothing else comes of it', async () => {
    await sync();
    let readBytes = 0;
    for (let day = 0; day < 30; day++) {
      nowMs += dayMs;
      const expected = nextChecked().length;
      const { manifest } = await sync();
      expect(manifest.readBytes).toBeGreaterThan((expected - 1) * block);
      expect(manifest.readBytes).toBeLessThanOrEqual(expected * block);
      expect([manifest.changedBytes, manifest.disks[0]?.fullReadReason]).toEqual([0, '']);
      expect(unverifiedMs(lap())).toBeLessThanOrEqual(everyMs);
      readBytes += manifest.readBytes;
    }
    expect(readBytes / disk.content.capacityBytes).toBeGreaterThan(1);
    expect(readBytes / disk.content.capacityBytes).toBeLessThan(1.1);
    expect(known().alarms).toEqual([]);
  });

  it('is not read beyond the bound of a run, each disk by its size', async () => {
    machine.addDisk('data', 100 * block).write(0, randomBytes(100 * block));
    const spotCheck = { everyMs, bytesPerRunMax: 40 * block };
    await sync({ spotCheck });
    nowMs += 90 * dayMs;
    const { manifest } = await sync({ spotCheck });
    // Each share is rounded up to whole blocks, or a small disk beside large ones would never be checked.
    expect(manifest.readBytes).toBe(41 * block);
    expect(known().laps.map(({ cursor }) => cursor)).toEqual([30, 11]);
    expect(known().laps.every((each) => unverifiedMs(each) > everyMs)).toBe(true);
  });

  it('blocks that changed are read once, and count as checked', async () => {
    await sync();
    nowMs += 3 * dayMs;
    const checked = nextChecked();
    disk.write(0, randomBytes(10 * block));
    const { manifest } = await sync();
    expect([manifest.readBytes, manifest.changedBytes]).toEqual([checked.length * block, 10 * block]);
    expect(lap().cursor).toBe(checked.length);
  });
});

it('a source without tracking is compared whole in each run, and needs no spot check', async () => {
  machine.disks.clear();
  disk = machine.addDisk('system', 50 * block, { ...disk.style, tracks: false });
  disk.write(0, randomBytes(50 * block));
  await sync();
  nowMs += 3 * dayMs;
  disk.content.write(9 * block, randomBytes(3));
  const published = await sync();
  expect([reasonOf(published), published.manifest.changedBytes, published.alarms]).toEqual([
    'this source has no changed block tracking',
    block,
    [],
  ]);
  expect(known().laps).toEqual([]);
});

describe('a run that does not publish', () => {
  const fail = (when: (name: string) => boolean, how: MemoryOutcome['kind']): Partial<RigOptions> => ({
    target: openMemoryTarget(store, async ({ kind, name }) =>
      kind === 'put' && when(name) ? ({ kind: how } as MemoryOutcome) : { kind: 'done' },
    ),
  });
  /** The entry that publishes is the second that a run writes. */
  const secondEntry = (): ((name: string) => boolean) => {
    const seen = new Set<string>();
    return (name) => name.includes('/chain/') && seen.add(name).size > 1;
  };

  it('claims nothing for what it checked, and the next one checks it again', async () => {
    await sync();
    nowMs += 3 * dayMs;
    await sync();
    const before = known();
    for (let attempt = 0; attempt < 2; attempt++) {
      nowMs += dayMs;
      await expect(sync(fail(secondEntry(), 'lost'))).rejects.toThrow(StoreUnavailable);
      expect(known()).toEqual(before);
    }
    const checked = nextChecked();
    expect(checked.length).toBeGreaterThan(15);
    expect((await sync()).manifest.readBytes).toBe(checked.length * block);
  });

  it('but whose entry is there all the same claims what it checked once the next run has found that out', async () => {
    await sync();
    nowMs += 3 * dayMs;
    const checked = nextChecked().length;
    await expect(sync(fail(secondEntry(), 'unanswered'))).rejects.toThrow(StoreUnavailable);
    expect(lap().cursor).toBe(0);
    await sync();
    expect(lap().cursor).toBe(checked);
  });

  it('does not forget that tracking lied: the next one reads everything, though the block in question was written since', async () => {
    await sync();
    disk.content.write(3 * block, randomBytes(9));
    disk.content.write(250 * block, randomBytes(9));
    nowMs += 3 * dayMs;
    await expect(sync(fail(secondEntry(), 'lost'))).rejects.toThrow(StoreUnavailable);
    expect(known().alarms).toMatchObject([{ kind: 'tracking', point: null }]);
    disk.write(0, randomBytes(30 * block));
    const published = await sync();
    expect(reasonOf(published)).toMatch(/^resync: spot check: block 3 /);
    await expectRestores(published);
    expect(published.alarms).toMatchObject([{ kind: 'tracking', point: published.point }]);
    expect([known().alarms.length, lap().doubt]).toEqual([1, '']);
    nowMs += dayMs;
    expect(reasonOf(await sync())).toBe('');
  });
});
