/** The cycle of a run at the simulated vCenter, and what can go wrong between its steps. */
import { randomBytes } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { rm, writeFile } from 'node:fs/promises';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { ChangeTrackingLost, QuiesceUnavailable, SourceNotFound } from '../../../hypervisors/errors.ts';
import type { BlockSource, MachineSnapshot, SnapshotOptions } from '../../../hypervisors/hypervisor.ts';
import { listInventory } from '../../../hypervisors/vsphere/inventory.ts';
import { openDisksMax } from '../../../hypervisors/vsphere/open-readers.ts';
import { booleanTag, type Reference, tag } from '../../../hypervisors/vsphere/vim25/soap-xml.ts';
import { runTask } from '../../../hypervisors/vsphere/vim25/tasks.ts';
import type { VimSession } from '../../../hypervisors/vsphere/vim25/vim-session.ts';
import { connectVsphere } from '../../../hypervisors/vsphere/vsphere-connection.ts';
import { VsphereRefused, VsphereSnapshotGone } from '../../../hypervisors/vsphere/vsphere-errors.ts';
import { openVimSession, type VsphereMachine } from '../../../hypervisors/vsphere/vsphere-machine.ts';
import type { VcsimPoint } from '../../peers/vcsim.ts';
import { labMachine, openVsphereLab, type VsphereLab, vsphereNeeds } from './vsphere-lab.ts';

const needs = await vsphereNeeds();
const never = new AbortController().signal;
const options: SnapshotOptions = { quiesce: 'prefer', whenChanging: 'refuse' };

describe.skipIf(needs !== null)(`a run at vSphere${needs === null ? '' : ` (${needs})`}`, () => {
  let lab: VsphereLab;
  beforeAll(async () => {
    lab = await openVsphereLab();
  });
  afterAll(() => lab?.[Symbol.asyncDispose]());
  beforeEach(async () => {
    await lab.vcsim.heal();
    await lab.vcsim.behave({});
  });

  const standing = async (): Promise<readonly VcsimPoint[]> =>
    (await lab.vcsim.points(labMachine)).filter(({ gone }) => !gone);
  const names = async () => (await standing()).map(({ name }) => name);

  async function withSnapshot<T>(
    work: (taken: MachineSnapshot) => Promise<T>,
    { machine = lab.machine(), asked = options }: { machine?: VsphereMachine; asked?: SnapshotOptions } = {},
  ): Promise<T> {
    await using connection = connectVsphere([machine]);
    await using taken = await connection.snapshot({ name: 'web' }, asked, never);
    return await work(taken);
  }

  it('leaves no snapshot, and touches nobody else’s', async () => {
    const foreign = await lab.vcsim.addSnapshot(labMachine, 'failkit-is-not-mine');
    await withSnapshot(async () => {
      const all = await names();
      expect([all.length, all.filter((name) => /^failkit-[0-9a-f]{8}-/.test(name)).length]).toEqual([2, 1]);
    });
    expect(await names()).toEqual(['failkit-is-not-mine']);
    await lab.vcsim.removeSnapshot(labMachine, foreign);
  });

  it('removes what a killed run of its own left, and not that of another agent', async () => {
    const machine = lab.machine();
    const ours = await lab.vcsim.addSnapshot(labMachine, `failkit-${machine.tag}-left`);
    const other = await lab.vcsim.addSnapshot(labMachine, 'failkit-0badc0de-1');
    await withSnapshot(async () => expect((await names()).includes(`failkit-${machine.tag}-left`)).toBe(false), {
      machine,
    });
    expect(await names()).toEqual(['failkit-0badc0de-1']);
    expect(ours).not.toBe(other);
    await lab.vcsim.removeSnapshot(labMachine, other);
  });

  it('finds the snapshot that it was never told about, and asks for no second one', async () => {
    const machine = lab.machine({ tracking: 'leave' });
    await lab.vcsim.hurt({ method: 'CreateSnapshot_Task', how: 'lose-answer' });
    await lab.vcsim.calls();
    await withSnapshot(async () => expect(await names()).toHaveLength(1), { machine });
    expect(await names()).toEqual([]);
    expect((await lab.vcsim.calls()).CreateSnapshot_Task).toBe(1);
  });

  it('waits for the snapshot that it was never told about where that is still being taken', async () => {
    await lab.vcsim.behave({ taskDelayMs: 600 });
    await lab.vcsim.hurt({ method: 'CreateSnapshot_Task', how: 'lose-answer' });
    await lab.vcsim.calls();
    const machine = lab.machine({ tracking: 'leave' });
    await withSnapshot(async () => expect(await names()).toHaveLength(1), { machine });
    expect(await names()).toEqual([]);
    expect((await lab.vcsim.calls()).CreateSnapshot_Task).toBe(1);
  });

  it("waits for somebody else's snapshot, however that ends", async () => {
    await lab.vcsim.behave({ taskDelayMs: 400 });
    await lab.vcsim.hurt({ method: 'CreateSnapshot_Task', how: 'task', fault: 'NoPermission' });
    await using session = openVimSession(lab.server);
    const theirs = [tag('name', 'theirs'), tag('description', ''), booleanTag('memory', false)];
    await session.call('CreateSnapshot_Task', await refOf(session), [...theirs, booleanTag('quiesce', false)], never);
    await withSnapshot(async () => expect(await names()).toHaveLength(1));
    expect(await names()).toEqual([]);
  });

  it('leaves nothing where it was never told about the snapshot that tracking begins with', async () => {
    await using fresh = await openVsphereLab();
    await fresh.vcsim.behave({ taskDelayMs: 300 });
    await fresh.vcsim.hurt({ method: 'CreateSnapshot_Task', how: 'lose-answer' });
    await using connection = connectVsphere([fresh.machine()]);
    await using taken = await connection.snapshot({ name: 'web' }, options, never);
    expect(taken.disks.map(({ referencePoint }) => referencePoint !== null)).toEqual([true, true]);
    expect((await fresh.vcsim.points(labMachine)).map(({ gone }) => gone)).toEqual([true, false]);
  });

  it('has nothing to remove where the machine is deleted while it is read', async () => {
    await using fresh = await openVsphereLab();
    await using connection = connectVsphere([fresh.machine()]);
    const taken = await connection.snapshot({ name: 'web' }, options, never);
    await using session = openVimSession(fresh.server);
    const ref = await refOf(session);
    await runTask(session, 'PowerOffVM_Task', ref, [], 10_000, never);
    await session.call('UnregisterVM', ref, [], never);
    await expect(taken.settleConsistency(never)).rejects.toThrow(VsphereRefused);
    await taken[Symbol.asyncDispose]();
  });

  it('removes the snapshot through a vCenter that goes away just then', async () => {
    await lab.vcsim.hurt({ method: 'RemoveSnapshot_Task', how: 'lose-answer' });
    await withSnapshot(async () => lab.vcsim.restart(500));
    expect(await names()).toEqual([]);
  });

  it('waits for a snapshot that was still being taken when it was interrupted, and removes it', async () => {
    await lab.vcsim.behave({ taskDelayMs: 600 });
    const stop = new AbortController();
    const reason = new Error('enough');
    await using connection = connectVsphere([lab.machine()]);
    const asked = connection.snapshot({ name: 'web' }, options, stop.signal);
    setTimeout(() => stop.abort(reason), 300);
    await expect(asked).rejects.toBe(reason);
    expect(await names()).toEqual([]);
    expect((await lab.vcsim.points(labMachine)).at(-1)).toMatchObject({ gone: true });
  });

  it('cleans up after a snapshot that failed, too', async () => {
    const [point = null] = await withSnapshot(async ({ disks }) => disks.map(({ referencePoint }) => referencePoint));
    await lab.vcsim.hurt({ method: 'QueryChangedDiskAreas', how: 'fault', fault: 'NotAuthenticated', times: 2 });
    const failed = withSnapshot(({ disks: [disk] }) => collect(firstOf(disk), point));
    await expect(failed).rejects.toThrow(VsphereRefused);
    expect(await names()).toEqual([]);
  });

  it('goes on through a login that ends and a vCenter that restarts while disks are read', async () => {
    const content = await lab.content();
    await withSnapshot(async ({ disks }) => {
      const [disk] = disks;
      await lab.vcsim.endSessions();
      const extents = await collect(firstOf(disk), null);
      await lab.vcsim.restart(300);
      for (const { offset, length } of extents) {
        const bytes = new Uint8Array(length);
        await disk?.read(offset, bytes, never);
        expect(Buffer.compare(bytes, content.get(disk?.label ?? '')?.subarray(offset, offset + length) ?? bytes)).toBe(
          0,
        );
      }
      await new Promise((resolve) => setTimeout(resolve, 400));
    });
    expect(await names()).toEqual([]);
  });

  it('takes the other kind of snapshot where the guest can not be quiesced, unless it is required', async () => {
    const hurt = { method: 'CreateSnapshot_Task', how: 'task', fault: 'ApplicationQuiesceFault' } as const;
    await lab.vcsim.hurt(hurt);
    expect(await withSnapshot((taken) => taken.settleConsistency(never))).toBe('crash-consistent');
    expect(await withSnapshot((taken) => taken.settleConsistency(never))).toBe('application-consistent');
    const required = { ...options, quiesce: 'require' } as const;
    await lab.vcsim.hurt(hurt);
    await expect(withSnapshot(async () => undefined, { asked: required })).rejects.toThrow(QuiesceUnavailable);
    await lab.vcsim.behave({ toolsMissing: true });
    expect(await withSnapshot((taken) => taken.settleConsistency(never))).toBe('crash-consistent');
    await expect(withSnapshot(async () => undefined, { asked: required })).rejects.toThrow(QuiesceUnavailable);
    expect(await names()).toEqual([]);
  });

  it('waits for files that somebody holds, and consolidates what a removed snapshot left', async () => {
    await lab.vcsim.behave({ needsConsolidation: true });
    await lab.vcsim.hurt({ method: 'RemoveSnapshot_Task', how: 'task', fault: 'FileLocked' });
    await lab.vcsim.calls();
    await withSnapshot(async () => undefined);
    const calls = await lab.vcsim.calls();
    expect([calls.RemoveSnapshot_Task, calls.ConsolidateVMDisks_Task]).toEqual([2, 1]);
    expect(await names()).toEqual([]);
  });

  it('trusts nothing that was read from a snapshot that somebody removed', async () => {
    const outcome = withSnapshot(async (taken) => {
      const [point] = await standing();
      await lab.vcsim.removeSnapshot(labMachine, point?.snapshot ?? '');
      return await taken.settleConsistency(never);
    });
    await expect(outcome).rejects.toThrow(VsphereSnapshotGone);
  });

  it('leaves out what it is told to, and says so', async () => {
    const machine = lab.machine({ excludedDisks: ['scsi0:0'] });
    await withSnapshot(
      async ({ disks, excluded }) => {
        expect(disks).toHaveLength(1);
        expect(excluded).toEqual([{ label: 'scsi0:0', reason: 'the configuration excludes it' }]);
      },
      { machine },
    );
  });

  it('has few disks open at a time, however many there are, and reads each again where it was closed', async () => {
    await using many = await openVsphereLab();
    for (let i = 0; i < openDisksMax + 1; i++) await many.vcsim.addDisk(labMachine, 1024 * 1024);
    const content = await many.content();
    await using connection = connectVsphere([many.machine()]);
    await using taken = await connection.snapshot({ name: 'web' }, options, never);
    expect(taken.disks.length).toBeGreaterThan(openDisksMax);
    for (const disk of [...taken.disks, firstOf(taken.disks[0])]) {
      const bytes = new Uint8Array(disk.capacityBytes);
      await disk.read(0, bytes, never);
      expect(content.get(disk.label)?.every((byte, i) => byte === bytes[i])).toBe(true);
      expect(readersOf(many)).toBeLessThanOrEqual(openDisksMax);
    }
    expect(readersOf(many)).toBe(openDisksMax);
  });

  it.each(['vddk', 'datastore'] as const)('goes the whole way at a single ESXi host, too (%s)', async (reads) => {
    await using esx = await openVsphereLab({ esx: true });
    const content = await esx.content();
    await using connection = connectVsphere([esx.machine({ reads })]);
    await using taken = await connection.snapshot({ name: 'web' }, options, never);
    expect(taken.disks.map(({ label }) => label)).toEqual([...content.keys()]);
    for (const disk of taken.disks) {
      expect(disk.referencePoint).not.toBeNull();
      const bytes = new Uint8Array(disk.capacityBytes);
      await disk.read(0, bytes, never);
      expect(Buffer.compare(bytes, content.get(disk.label) ?? new Uint8Array())).toBe(0);
    }
  });

  it('takes no snapshot where a datastore is nearly full', async () => {
    await lab.vcsim.setFree('LocalDS_0', 2 ** 30);
    const machine = lab.machine({ datastoreFreeBytesMin: 2 ** 30 + 1 });
    await expect(withSnapshot(async () => undefined, { machine })).rejects.toThrow(
      /LocalDS_0 has 1073741824 bytes left/,
    );
    await withSnapshot(async () => undefined, { machine: lab.machine({ datastoreFreeBytesMin: 2 ** 30 }) });
    await lab.vcsim.setFree('LocalDS_0', 2 ** 40);
  });

  it('captures what vSphere says of the machine, and its UEFI variables', async () => {
    const nvram = randomBytes(65_536);
    const file = await lab.vcsim.pathOf(`[LocalDS_0] ${labMachine}/${labMachine}.nvram`);
    await writeFile(file, nvram);
    const { attachments } = await withSnapshot(async (taken) => taken);
    const text = (name: string) =>
      new TextDecoder().decode(attachments.find((each) => each.name === name)?.bytes ?? new Uint8Array());
    expect(JSON.parse(text('vsphere-machine.json'))).toMatchObject({
      name: labMachine,
      firmware: 'bios',
      hasTpm: false,
    });
    expect(text('vsphere-config.xml')).toContain('<hardware');
    const captured = attachments.find(({ name }) => name === 'vsphere.nvram')?.bytes ?? new Uint8Array();
    expect(nvram.equals(captured)).toBe(true);
    await rm(file);
    const without = await withSnapshot(async (taken) => taken);
    const summary = without.attachments.find(({ name }) => name === 'vsphere-machine.json')?.bytes;
    expect(JSON.parse(new TextDecoder().decode(summary)).nvram.missing).toMatch(/has none yet/);
    expect(without.attachments).toHaveLength(2);
  });

  it('names what it does not find', async () => {
    const machine = lab.machine({ at: { instanceUuid: '00000000-0000-0000-0000-000000000000' } });
    await expect(withSnapshot(async () => undefined, { machine })).rejects.toThrow(SourceNotFound);
  });

  describe('what changed since the last point', () => {
    const firstPoints = async (machine: VsphereMachine) =>
      await withSnapshot(async ({ disks }) => disks.map(({ referencePoint }) => referencePoint), { machine });

    it('is asked for in windows, of which most are empty', async () => {
      const machine = lab.machine();
      const [point = null] = await firstPoints(machine);
      await lab.write('scsi0:0', 3 * 1024 * 1024, new Uint8Array(4096).fill(1));
      await lab.vcsim.behave({ windowBytes: 256 * 1024 });
      const extents = await withSnapshot(({ disks: [disk] }) => collect(firstOf(disk), point), { machine });
      expect(extents).toEqual([{ offset: 3 * 1024 * 1024, length: 65_536, zero: false }]);
    });

    it.each(['FileFault', 'InvalidArgument', 'SystemError'])('is not known where vSphere says %s', async (fault) => {
      const machine = lab.machine();
      const [point = null] = await firstPoints(machine);
      await lab.vcsim.hurt({ method: 'QueryChangedDiskAreas', how: 'fault', fault });
      const asked = withSnapshot(({ disks: [disk] }) => collect(firstOf(disk), point), { machine });
      await expect(asked).rejects.toThrow(ChangeTrackingLost);
    });

    it('is more than the list of what was ever written, which is believed where tracking was just switched on', async () => {
      await using fresh = await openVsphereLab();
      await using connection = connectVsphere([fresh.machine({ reads: 'datastore' })]);
      const listed = async () => {
        await using taken = await connection.snapshot({ name: 'web' }, options, never);
        const disk = firstOf(taken.disks[0]);
        const extents = await collect(disk, null);
        return [extents.reduce((sum, { length, zero }) => sum + (zero ? 0 : length), 0), disk.capacityBytes] as const;
      };
      const [first, capacityBytes] = await listed();
      expect([first > 0, first < capacityBytes / 2]).toEqual([true, true]);
      expect(await listed()).toEqual([capacityBytes, capacityBytes]);
    });

    it('begins later where somebody else keeps vSphere from tracking: everything is read', async () => {
      await using fresh = await openVsphereLab();
      await fresh.vcsim.hurt({ method: 'ReconfigVM_Task', how: 'fault', fault: 'InvalidState' });
      await using connection = connectVsphere([fresh.machine()]);
      await using taken = await connection.snapshot({ name: 'web' }, options, never);
      expect(taken.disks.map(({ referencePoint }) => referencePoint)).toEqual([null, null]);
    });

    it('is not known where tracking was reset, or the disk resized', async () => {
      const machine = lab.machine();
      const [first = null, second = null] = await firstPoints(machine);
      const [one, two] = await lab.disks();
      await lab.vcsim.resetTracking(labMachine, one?.key ?? 0);
      await lab.vcsim.resizeDisk(labMachine, two?.key ?? 0, 3 * 1024 * 1024);
      await withSnapshot(
        async ({ disks }) => {
          await expect(collect(firstOf(disks[0]), first)).rejects.toThrow(/switched off and on, or reset/);
          await expect(collect(firstOf(disks[1]), second)).rejects.toThrow(/its size changed from 2098176/);
        },
        { machine },
      );
    });

    it.each([false, true])(
      'is known across snapshots that it may go back to, if that would tell: %s',
      async (tells) => {
        await using fresh = await openVsphereLab({ withoutGeneration: !tells });
        await using connection = connectVsphere([fresh.machine()]);
        const pointOf = async (since: Uint8Array | null) => {
          await using taken = await connection.snapshot({ name: 'web' }, options, never);
          const disk = firstOf(taken.disks[0]);
          if (since !== null) await collect(disk, since);
          return disk.referencePoint;
        };
        const before = await pointOf(null);
        const theirs = await fresh.vcsim.addSnapshot(labMachine, 'theirs');
        const above = await pointOf(before);
        await fresh.vcsim.removeSnapshot(labMachine, theirs);
        if (tells) await pointOf(above);
        else await expect(pointOf(above)).rejects.toThrow(/had snapshots that it may have gone back to/);
      },
    );

    it('is not tracked where the policy leaves that off: everything is read', async () => {
      await using fresh = await openVsphereLab();
      await using connection = connectVsphere([fresh.machine({ tracking: 'leave' })]);
      await using taken = await connection.snapshot({ name: 'web' }, options, never);
      expect(taken.disks.map(({ referencePoint }) => referencePoint)).toEqual([null, null]);
      const extents = await collect(firstOf(taken.disks[0]), null);
      expect(extents.at(-1)).toMatchObject({ zero: false });
    });
  });
});

async function refOf(session: VimSession): Promise<Reference> {
  const [listed] = (await listInventory(session, never)).filter(({ machine }) => machine.name === labMachine);
  if (listed === undefined) throw new Error(`there is no ${labMachine}`);
  return listed.machine.ref;
}

async function collect(disk: BlockSource, since: Uint8Array | null) {
  const extents = [];
  for await (const extent of disk.changedExtents(since, never)) extents.push(extent);
  return extents;
}

function firstOf(disk: BlockSource | undefined): BlockSource {
  if (disk === undefined) throw new Error('there is no disk');
  return disk;
}

/** nbdkit processes of that lab. */
function readersOf({ vddk }: VsphereLab): number {
  const pids = readdirSync('/proc').filter((entry) => /^\d+$/.test(entry));
  return pids.filter((pid) => {
    try {
      const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8');
      return words.includes(`\0libdir=${vddk.libdir}\0`) && words.includes('--foreground');
    } catch {
      return false; // It ended meanwhile.
    }
  }).length;
}
