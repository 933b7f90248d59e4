import { rmSync } from 'node:fs';
import { beforeEach, describe, expect, it } from 'vitest';
import type { PublishedPoint } from '../../../agent/protect/protect-machine.ts';
import { MachineState } from '../../../agent/state/machine-state.ts';
import { type MemoryStore, openMemoryTarget } from '../../fakes/memory-target.ts';
import type { ModelMachine } from '../../fakes/model-machine.ts';
import { filled } from '../../law/guest.ts';
import { memorySite, workersOfFile } from '../../rig/memory-site.ts';
import { type ReplicaRig, type RigOptions, wrapOnly } from '../../rig/replica-rig.ts';

const workers = workersOfFile();
let store: MemoryStore;
let rig: ReplicaRig;
let machine: ModelMachine;
beforeEach(async () => {
  ({ store, rig, machine } = await memorySite(workers()));
  machine.addDisk('root', 6_000_000).write(0, filled(5_000_000, 1, true));
  machine.addDisk('data', 200_000).write(0, filled(100_000, 2, true));
  machine.attachments.set('nvram', filled(5_000, 3, true));
  return () => rig[Symbol.asyncDispose]();
});

const writeOnly = (more: Partial<RigOptions> = {}): Promise<PublishedPoint> =>
  rig.protect(machine, { access: 'write-only', provider: wrapOnly(rig.provider), ...more });

/** Units that live on after the newest point, of segments that earlier points brought. */
async function oldUnitsAlive(newest: number): Promise<number> {
  using reader = await rig.open();
  const old = [...reader.replica.chain.state.segments.values()].filter(({ birth }) => birth < newest);
  return old.reduce((sum, { units, dead }) => sum + units - dead, 0);
}

async function expectContent(point: number): Promise<void> {
  for (const [label, content] of machine.newest)
    expect(Buffer.compare(await rig.restore(point, label), content.bytes())).toBe(0);
}

describe('an agent that may not unwrap keys', () => {
  it('sends what changed, as long as it has its own map', async () => {
    await writeOnly();
    machine.disks.get('root')?.write(4_500_000, filled(10, 4, true));
    const { point, manifest } = await writeOnly();
    expect(manifest.changedBytes).toBe(65_536);
    expect(manifest.disks.map(({ fullReadReason }) => fullReadReason)).toEqual(['', '']);
    await expectContent(point);
  });

  it('goes on from a point whose answer it never saw', async () => {
    await writeOnly();
    machine.disks.get('root')?.write(4_500_000, filled(10, 4, true));
    // Key record, begin, one segment with blocks and pages, publish.
    let puts = 0;
    const target = openMemoryTarget(store, async ({ kind }) => {
      if (kind === 'put') puts++;
      return { kind: kind === 'put' && puts === 4 ? 'unanswered' : 'done' };
    });
    await expect(writeOnly({ target })).rejects.toThrow('no answer');
    const { manifest } = await writeOnly();
    expect(manifest.changedBytes).toBe(0);
    expect(manifest.disks.map(({ fullReadReason }) => fullReadReason)).toEqual(['', '']);
    using reader = await rig.open();
    expect(reader.replica.points).toHaveLength(3);
  });

  it('sends everything again on a new host, says why, and leaves nothing of the old points alive', async () => {
    await writeOnly();
    rmSync(rig.stateFolder, { recursive: true });
    const { point, manifest } = await writeOnly({ takeOver: true });
    for (const disk of manifest.disks) expect(disk.fullReadReason).toMatch(/may not unwrap keys: everything is sent/);
    expect(await oldUnitsAlive(point)).toBe(0);
    await expectContent(point);
  });

  it('sends everything again when a page of its map is gone, and leaves nothing of the old points alive', async () => {
    const first = await writeOnly();
    {
      using state = new MachineState(rig.stateFolder, 'machine');
      state.clearPages();
    }
    machine.disks.get('data')?.write(100, filled(10, 4, true));
    const { point, manifest } = await writeOnly();
    expect(manifest.disks.map(({ diskId }) => diskId)).toEqual(first.manifest.disks.map(({ diskId }) => diskId));
    for (const disk of manifest.disks) expect(disk.fullReadReason).toMatch(/may not unwrap keys: everything is sent/);
    expect(await oldUnitsAlive(point)).toBe(0);
    await expectContent(point);
    expect((await writeOnly()).manifest.changedBytes).toBe(0);
  });

  it('can let a disk go whose map it can no longer open', async () => {
    await writeOnly();
    {
      using state = new MachineState(rig.stateFolder, 'machine');
      state.clearPages();
    }
    machine.disks.delete('data');
    machine.disks.delete('root');
    const { point, manifest } = await writeOnly();
    expect(manifest.disks).toEqual([]);
    expect(await oldUnitsAlive(point)).toBe(0);
  });
});
