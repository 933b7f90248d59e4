import { randomBytes } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { PublishedPoint } from '../../../agent/protect/protect-machine.ts';
import { MachineState } from '../../../agent/state/machine-state.ts';
import type { TrackRecord } from '../../../agent/vigilance/track-record.ts';
import { flagOf } from '../../../replica/manifest.ts';
import { StoreUnavailable } from '../../../storage-targets/errors.ts';
import { type MemoryOutcome, type MemoryStore, openMemoryTarget } from '../../fakes/memory-target.ts';
import type { ModelDisk } from '../../fakes/model-disk.ts';
import type { ModelMachine } from '../../fakes/model-machine.ts';
import { filled } from '../../law/guest.ts';
import { memorySite, workersOfFile } from '../../rig/memory-site.ts';
import type { ReplicaRig, RigOptions } from '../../rig/replica-rig.ts';

const block = 65_536;
const blocks = 200;
const hourMs = 3_600_000;
const changeAlarm = { enabled: true, fromBytes: 4 * block };

const workers = workersOfFile();
let store: MemoryStore;
let rig: ReplicaRig;
let machine: ModelMachine;
let disk: ModelDisk;
let nowMs: number;

beforeEach(async () => {
  nowMs = Date.UTC(2026, 2, 1);
  ({ store, rig, machine } = await memorySite(workers(), () => nowMs));
  disk = machine.addDisk('system', blocks * block);
  disk.write(0, filled(blocks * block, 1, false));
  await sync();
});
afterEach(() => rig[Symbol.asyncDispose]());

async function sync(options: Partial<RigOptions> = {}): Promise<PublishedPoint> {
  nowMs += hourMs;
  return await rig.protect(machine, { segmentBytes: 1_000_000, changeAlarm, ...options });
}

/** Hours in which one or two blocks of text change. */
async function usualHours(count: number): Promise<void> {
  for (let hour = 0; hour < count; hour++) {
    disk.write((hour % blocks) * block, filled((1 + (hour % 2)) * block, 100 + hour, false));
    expect((await sync()).alarms).toEqual([]);
  }
}

function encrypt(): void {
  disk.write(0, randomBytes(80 * block));
}

function known(): TrackRecord {
  using state = new MachineState(rig.stateFolder, 'machine');
  return state.trackRecord;
}

async function flagInBucket(point: number): Promise<string | null> {
  using reader = await rig.open();
  return flagOf((await reader.replica.openPoint(point, rig.signal)).manifest);
}

const what = 'changed 40 % of its disks at ratio 1.0; usual is 0.8 % at ratio';

describe('an encrypted overwrite', () => {
  it('is published, flagged in the bucket for every host to see, and known here until a person has seen it', async () => {
    await usualHours(10);
    encrypt();
    const published = await sync();
    expect(published.alarms).toMatchObject([{ kind: 'change', point: published.point, timeMs: nowMs }]);
    expect(published.alarms[0]?.what).toContain(what);
    expect(await flagInBucket(published.point)).toBe(published.alarms[0]?.what);
    expect(Buffer.compare(await rig.restore(published.point, 'system'), disk.content.bytes())).toBe(0);
    const next = await sync();
    expect([next.alarms, await flagInBucket(next.point)]).toEqual([[], null]);
    expect(known().alarms).toMatchObject([{ point: published.point, acknowledged: false }]);
    {
      using state = new MachineState(rig.stateFolder, 'machine');
      state.acknowledgeAlarms();
    }
    await sync();
    expect(known().alarms).toMatchObject([{ point: published.point, acknowledged: true }]);
  });

  it('is noticed by a resync, too, which does not count as usual', async () => {
    await usualHours(10);
    encrypt();
    disk.loseTracking(0);
    expect((await sync()).alarms).toMatchObject([{ kind: 'change' }]);
    expect(known().samples).toHaveLength(10);
  });

  it('is noticed although most of it was sent by runs that were interrupted', async () => {
    await usualHours(10);
    encrypt();
    const putsMax = 4;
    let puts = 0;
    const target = openMemoryTarget(store, async ({ kind, name }) =>
      kind === 'put' && name.includes('/segments/') && ++puts > putsMax ? { kind: 'lost' } : { kind: 'done' },
    );
    await expect(sync({ target })).rejects.toThrow(StoreUnavailable);
    const published = await sync();
    expect(published.adopted).toBe(true);
    expect(published.manifest.changedBytes).toBeLessThan(60 * block);
    // Two hours now, since the point before.
    expect(published.alarms[0]?.what).toContain(what);
  });

  it.each(['lost', 'unanswered'] as const)(
    'of which the publish was %s is not forgotten, and flagged once',
    async (how) => {
      await usualHours(10);
      encrypt();
      let entries = 0;
      const target = openMemoryTarget(
        store,
        async ({ kind, name }): Promise<MemoryOutcome> =>
          kind === 'put' && name.includes('/chain/') && ++entries > 1 ? { kind: how } : { kind: 'done' },
      );
      await expect(sync({ target })).rejects.toThrow(StoreUnavailable);
      expect(known().alarms, 'before anybody knows whether it was published').toEqual([]);
      const next = await sync();
      const [alarm, ...others] = known().alarms;
      expect(others).toEqual([]);
      const flaggedPoint = alarm?.point ?? 0;
      expect(await flagInBucket(flaggedPoint)).toContain(what);
      expect(flaggedPoint === next.point).toBe(how === 'lost');
    },
  );
});

describe('no alarm', () => {
  it('comes of a new machine, and its first copy is no history', async () => {
    expect(known().samples).toEqual([]);
    await usualHours(7);
    encrypt();
    expect((await sync()).alarms).toEqual([]);
    expect(known().samples).toHaveLength(8);
  });

  it('comes of a weekend, or of three times the usual', async () => {
    await usualHours(10);
    nowMs += 64 * hourMs;
    disk.write(0, filled(12 * block, 7, false));
    expect((await sync()).alarms).toEqual([]);
    disk.write(50 * block, filled(6 * block, 8, false));
    expect((await sync()).alarms).toEqual([]);
  });

  it('comes of a repair, which sends what did not change', async () => {
    await usualHours(10);
    await sync();
    {
      using reader = await rig.open();
      using state = new MachineState(rig.stateFolder, 'machine');
      state.addDamagedSegments([...reader.replica.chain.state.segments].map(([, life]) => life));
    }
    const published = await sync();
    expect(published.manifest.changedBytes).toBeGreaterThan(100 * block);
    expect(published.alarms).toEqual([]);
    expect(known().samples).toHaveLength(11);
  });

  it('comes when it is switched off', async () => {
    await usualHours(10);
    encrypt();
    expect((await sync({ changeAlarm: { ...changeAlarm, enabled: false } })).alarms).toEqual([]);
  });
});
