/** Machines of a real QEMU, by its own monitor. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ChangeTrackingLost, QuiesceUnavailable, SourceNotFound } from '../../../hypervisors/errors.ts';
import type {
  BlockSource,
  Extent,
  MachineSnapshot,
  ReferencePoint,
  SnapshotOptions,
} from '../../../hypervisors/hypervisor.ts';
import { examineQmp } from '../../../hypervisors/kvm/examine-qmp.ts';
import { connectKvm } from '../../../hypervisors/kvm/kvm-connection.ts';
import {
  MachineBusy,
  QmpLost,
  QmpUnreachable,
  ScratchFull,
  SnapshotLost,
} from '../../../hypervisors/kvm/kvm-errors.ts';
import type { KvmMachine } from '../../../hypervisors/kvm/kvm-machine.ts';
import { listDisks } from '../../../hypervisors/kvm/qemu-disks.ts';
import { parseMachine } from '../../../hypervisors/kvm/qemu-machine.ts';
import { serveImage } from '../../../hypervisors/nbd/qemu-nbd.ts';
import { describeHypervisorContract } from '../../contract/hypervisor.ts';
import { guestNeeds, qemuImg } from '../../peers/guest.ts';
import { openQemuLab, type QemuLab } from './qemu-lab.ts';

const needs = await guestNeeds();
const options: SnapshotOptions = { quiesce: 'off', whenChanging: 'refuse' };
const never = new AbortController().signal;

describe.skipIf(needs !== null)(`a machine of QEMU${needs === null ? '' : ` (${needs})`}`, () => {
  describeHypervisorContract('its monitor', openQemuLab);
  describeHypervisorContract('its monitor, where disks have threads of their own,', () =>
    openQemuLab({ iothread: true }),
  );

  describe('its bitmaps', () => {
    let lab: QemuLab;
    beforeEach(async () => {
      lab = await openQemuLab();
    });
    afterEach(() => lab[Symbol.asyncDispose]());
    const snapshot = (): Promise<MachineSnapshot> => lab.connection.snapshot({ name: lab.machineName }, options, never);

    /** As a run does that publishes: everything is listed, and the reference points are kept. */
    async function runOnce(since: ReadonlyMap<string, ReferencePoint> = new Map()) {
      await using taken = await snapshot();
      const extents = new Map<string, readonly Extent[]>();
      for (const disk of taken.disks) extents.set(disk.label, await listed(disk, since.get(disk.label) ?? null));
      await taken.settleConsistency(never);
      return { extents, points: new Map(taken.disks.map(({ label, referencePoint }) => [label, referencePoint])) };
    }

    const marks = async (): Promise<readonly string[]> =>
      (await listDisks(lab.monitor, never)).flatMap(({ bitmaps }) => bitmaps.map(({ name }) => name));

    it('tell exactly what was written since, however many runs failed meanwhile', async () => {
      const { points } = await runOnce();
      await lab.write('devdisk0', 65_536, new Uint8Array(100).fill(1));
      // A run that asks what changed and publishes nothing, and one that does not come so far.
      await runOnce(points);
      await lab.write('devdisk0', 20 * 65_536, new Uint8Array(100).fill(2));
      await (await snapshot())[Symbol.asyncDispose]();
      await lab.write('devdisk0', 30 * 65_536, new Uint8Array(100).fill(3));
      const { extents } = await runOnce(points);
      const changed = [1, 20, 30].map((block) => ({ offset: block * 65_536, length: 65_536, zero: false }));
      expect(extents.get('devdisk0')).toEqual(changed);
      expect(extents.get('devdisk1')).toEqual([]);
    });

    it('never pile up', async () => {
      let { points } = await runOnce();
      for (let round = 0; round < 3; round++) points = (await runOnce(points)).points;
      expect((await marks()).length).toBe(4);
      for (let round = 0; round < 12; round++) await runOnce();
      expect((await marks()).length).toBeLessThanOrEqual(2 * 10);
      await lab.write('devdisk0', 0, new Uint8Array(100).fill(1));
      const { extents } = await runOnce(points);
      expect(extents.get('devdisk0')).toEqual([{ offset: 0, length: 65_536, zero: false }]);
      expect((await marks()).length).toBe(4);
    });

    it('of qcow2 outlive QEMU, of a raw disk they do not: it is read in full', async () => {
      const { points } = await runOnce();
      await lab.restart();
      await lab.write('devdisk0', 65_536, new Uint8Array(100).fill(1));
      await using taken = await snapshot();
      const [qcow2, raw] = taken.disks;
      expect(await listed(qcow2, points.get('devdisk0') ?? null)).toHaveLength(1);
      const refusal = listed(raw, points.get('devdisk1') ?? null);
      await expect(refusal).rejects.toThrow(ChangeTrackingLost);
      await expect(refusal).rejects.toThrow(/QEMU was started anew/);
    });

    it('are not believed after QEMU was killed', async () => {
      const { points } = await runOnce();
      await lab.crash();
      await using first = await snapshot();
      const refusal = listed(first.disks[0], points.get('devdisk0') ?? null);
      await expect(refusal).rejects.toThrow(ChangeTrackingLost);
      await expect(refusal).rejects.toThrow(/is gone: QEMU was killed/);
      const next = first.disks[0]?.referencePoint ?? null;
      await first[Symbol.asyncDispose]();
      await lab.restart();
      await lab.crash();
      await using second = await snapshot();
      await expect(listed(second.disks[0], next)).rejects.toThrow(/is inconsistent: QEMU did not end in order/);
      expect(await listed(second.disks[0], null)).not.toEqual([]);
    });

    it('are not believed when they were switched off, removed, or left behind by an external snapshot', async () => {
      const { points } = await runOnce();
      const [name = ''] = await marks();
      await lab.monitor.run('block-dirty-bitmap-disable', { node: 'disk0', name }, never);
      await using off = await snapshot();
      await expect(listed(off.disks[0], points.get('devdisk0') ?? null)).rejects.toThrow(/was switched off/);
      await off[Symbol.asyncDispose]();
      const file = join(lab.folder, 'overlay.qcow2');
      const overlay = { 'node-name': 'disk0', 'snapshot-file': file, 'snapshot-node-name': 'overlay' };
      await lab.monitor.run('blockdev-snapshot-sync', overlay, never);
      await using over = await snapshot();
      await expect(listed(over.disks[0], points.get('devdisk0') ?? null)).rejects.toThrow(/is gone/);
    });

    it('of 1 TiB with 20,000 scattered writes are listed in less than 0.2 s, at best of five', async () => {
      const bitmap = 'failkit-0123abcd-point-0';
      await using large = await openQemuLab({ capacity: '1T', prepare: (path) => scatter(path, bitmap, 20_000) });
      await using taken = await large.connection.snapshot({ name: large.machineName }, options, never);
      const since = new TextEncoder().encode(bitmap);
      const times: number[] = [];
      let extents: readonly Extent[] = [];
      for (let round = 0; round < 5; round++) {
        const started = performance.now();
        extents = await listed(taken.disks[0], since);
        times.push(performance.now() - started);
      }
      expect(extents.length).toBeGreaterThanOrEqual(20_000);
      expect(Math.min(...times)).toBeLessThan(200);
    });

    it('are called differently on each disk, so that exchanged images are not taken for each other', async () => {
      const { points } = await runOnce();
      expect(new Set(await marks()).size).toBe(2);
      expect(new Set([...points.values()].map(String)).size).toBe(2);
    });

    it('of others, and their nodes, are left alone', async () => {
      await lab.monitor.run('block-dirty-bitmap-add', { node: 'disk0', name: 'somebody-else' }, never);
      const other = connectKvm([{ ...lab.machine, tag: '99999999' }]);
      await (await other.snapshot({ name: lab.machineName }, options, never))[Symbol.asyncDispose]();
      const { points } = await runOnce();
      await runOnce(points);
      expect(await marks()).toContain('somebody-else');
    });
  });

  describe('a snapshot', () => {
    let lab: QemuLab;
    beforeEach(async () => {
      lab = await openQemuLab();
    });
    afterEach(() => lab[Symbol.asyncDispose]());
    const snapshot = (machine: Partial<KvmMachine> = {}, chosen = options): Promise<MachineSnapshot> =>
      connectKvm([{ ...lab.machine, ...machine }]).snapshot({ name: lab.machineName }, chosen, never);

    it('stays as it was while the guest writes on, and leaves nothing behind', async () => {
      const before = await lab.content();
      await using taken = await snapshot();
      await lab.write('devdisk0', 0, new Uint8Array(256 * 1024).fill(0xee));
      await lab.write('devdisk1', 512, new Uint8Array(64 * 1024).fill(0xee));
      for (const disk of taken.disks) {
        const bytes = new Uint8Array(disk.capacityBytes);
        await disk.read(0, bytes, never);
        expect(Buffer.compare(bytes, before.get(disk.label) ?? new Uint8Array())).toBe(0);
      }
      await taken[Symbol.asyncDispose]();
      expect(await readdir(lab.machine.scratchFolder)).toEqual([]);
      const nodes = JSON.stringify(await lab.monitor.run('query-named-block-nodes', { flat: true }, never));
      expect(nodes).not.toMatch(/failkit-0123abcd-(n|frozen)/);
      expect(await lab.monitor.run('query-block-exports', {}, never)).toEqual([]);
    });

    it('whose job somebody cancels is not read any further, and settles as lost', async () => {
      await using taken = await snapshot();
      const [disk] = taken.disks;
      await disk?.read(0, new Uint8Array(512), never);
      await lab.monitor.run('block-job-cancel', { device: 'failkit-0123abcd-j0', force: true }, never);
      await expect
        .poll(() => taken.settleConsistency(never).then(String, (error: unknown) => error))
        .toBeInstanceOf(SnapshotLost);
      await expect(disk?.read(0, new Uint8Array(512), never)).rejects.toThrow(SnapshotLost);
    });

    it('is given up when the scratch folder runs full, and the guest is not stopped', async () => {
      await using taken = await snapshot({ scratchFreeBytesMin: 2 ** 20 });
      await taken[Symbol.asyncDispose]();
      await expect(snapshot({ scratchFreeBytesMin: 2 ** 60 })).rejects.toThrow(ScratchFull);
    });

    it('of a QEMU that is killed meanwhile fails by name, and cleans up what it can', async () => {
      await using taken = await snapshot();
      await lab.crash();
      await expect(taken.settleConsistency(never)).rejects.toThrow(QmpLost);
      await taken[Symbol.asyncDispose]();
      expect(await readdir(lab.machine.scratchFolder)).toEqual([]);
      await (await snapshot())[Symbol.asyncDispose]();
    });

    it('of pushed disks is listed again, whatever became of the list before', async () => {
      await using threads = await openQemuLab({ iothread: true });
      const once = () => threads.connection.snapshot({ name: threads.machineName }, options, never);
      await using before = await once();
      const since = before.disks[0]?.referencePoint ?? null;
      await before[Symbol.asyncDispose]();
      for (const block of [1, 20, 30]) await threads.write('devdisk0', block * 65_536, new Uint8Array(100).fill(block));
      await using taken = await once();
      const [disk] = taken.disks;
      if (disk === undefined) throw new Error('no disk');
      // Left in the middle, as by a run that finds that tracking lies, and reads all of it in the same snapshot.
      for await (const _ of disk.changedExtents(since, never)) break;
      const all = await listed(disk, null);
      expect(all.reduce((sum, { length }) => sum + length, 0)).toBe(disk.capacityBytes);
      const bytes = new Uint8Array(disk.capacityBytes);
      await disk.read(0, bytes, never);
      expect(Buffer.compare(bytes, (await threads.content()).get('devdisk0') ?? new Uint8Array())).toBe(0);
      expect((await listed(disk, since)).map(({ offset }) => offset / 65_536)).toEqual([1, 20, 30]);
    });

    it.for([false, true])('whose agent is killed is ended by its guard (threads: %s)', async (iothread) => {
      await using own = await openQemuLab({ iothread });
      const file = fileURLToPath(new URL('./killed-agent.ts', import.meta.url));
      const agent = spawn(process.execPath, [file, JSON.stringify(own.machine)], { stdio: 'ignore' });
      const [, signal] = await once(agent, 'exit');
      expect(signal).toBe('SIGKILL');
      const left = async () => {
        const nodes = JSON.stringify(await own.monitor.run('query-named-block-nodes', { flat: true }, never));
        const jobs = await own.monitor.run('query-block-jobs', {}, never);
        return [jobs, /failkit-0123abcd-[^p]/.exec(nodes)?.[0] ?? null, await readdir(own.machine.scratchFolder)];
      };
      await expect.poll(left, { timeout: 30_000 }).toEqual([[], null, []]);
      await (await own.connection.snapshot({ name: own.machineName }, options, never))[Symbol.asyncDispose]();
    });

    it('keeps others from an external snapshot that would outlive what it puts into the way of a pushed disk', async () => {
      await using threads = await openQemuLab({ iothread: true });
      const overlay = { 'snapshot-file': join(threads.folder, 'overlay.qcow2'), 'snapshot-node-name': 'overlay' };
      const add = (node: string) =>
        threads.monitor.run('blockdev-snapshot-sync', { ...overlay, 'node-name': node }, never);
      await using taken = await threads.connection.snapshot({ name: threads.machineName }, options, never);
      for (const node of ['failkit-0123abcd-f0', 'disk0']) await expect(add(node)).rejects.toThrow(/is busy/);
      await taken[Symbol.asyncDispose]();
      await add('disk0');
    });

    it('takes over the NBD server that a killed run left at a socket which is gone', async () => {
      const path = join(lab.folder, 'failkit-0123abcd-nbd');
      await lab.monitor.run('nbd-server-start', { addr: { type: 'unix', data: { path } } }, never);
      await rm(path);
      await (await snapshot())[Symbol.asyncDispose]();
    });

    it('captures how the machine is made and its UEFI variables, and takes no firmware for a disk', async () => {
      await using uefi = await openQemuLab({ uefi: true });
      await using taken = await uefi.connection.snapshot({ name: uefi.machineName }, options, never);
      expect(taken.disks.map(({ label }) => label)).toEqual(['devdisk0', 'devdisk1']);
      expect(taken.excluded).toEqual([]);
      const [machine, variables] = taken.attachments;
      expect([machine?.name, variables?.name]).toEqual(['qemu-machine.json', 'uefi-variables.fd']);
      expect(parseMachine(new TextDecoder().decode(machine?.bytes))).toEqual({
        machineType: expect.stringMatching(/^pc-q35-/),
        architecture: 'x86_64',
        memoryMiB: 256,
        processors: 1,
        loader: expect.stringMatching(/OVMF_CODE_4M\.fd$/),
        buses: { devdisk0: 'virtio', devdisk1: 'virtio' },
      });
      expect(variables?.bytes.length).toBe(540_672);
    });

    it('takes a SCSI disk, and sees the thread that it has from its controller', async () => {
      const file = { driver: 'file', filename: join(lab.folder, 'scsi.raw') };
      await writeFile(file.filename, new Uint8Array(1024 * 1024).fill(7));
      const { monitor } = lab;
      await monitor.run('object-add', { 'qom-type': 'iothread', id: 'thread' }, never);
      await monitor.run('device_add', { driver: 'virtio-scsi-pci', id: 'controller', iothread: 'thread' }, never);
      await monitor.run('blockdev-add', { driver: 'raw', 'node-name': 'scsi', file }, never);
      await monitor.run('device_add', { driver: 'scsi-hd', id: 'sda', drive: 'scsi' }, never);
      await using taken = await snapshot();
      const disk = taken.disks.find(({ label }) => label === 'sda');
      const bytes = new Uint8Array(512);
      await disk?.read(4096, bytes, never);
      expect(bytes.every((byte) => byte === 7)).toBe(true);
      const exported = JSON.stringify(await monitor.run('query-block-exports', {}, never));
      // What has a thread is not read from QEMU's server.
      expect(exported.match(/failkit-0123abcd-e\d/g)).toHaveLength(2);
    });

    it('leaves out a disk that other machines may write, too, and warns of one that may meet errors', async () => {
      const file = { driver: 'file', filename: join(lab.folder, 'shared.raw') };
      await writeFile(file.filename, new Uint8Array(1024 * 1024));
      await lab.monitor.run('blockdev-add', { driver: 'raw', 'node-name': 'shared', file }, never);
      const device = { driver: 'virtio-blk-pci', id: 'devshared', drive: 'shared', 'share-rw': true, werror: 'report' };
      await lab.monitor.run('device_add', device, never);
      await using taken = await snapshot();
      expect(taken.excluded).toEqual([{ label: 'devshared', reason: 'other machines may write it, too (share-rw)' }]);
      await taken[Symbol.asyncDispose]();
      const control = { kind: 'qmp' as const, socket: join(lab.folder, 'qmp'), guestAgentSocket: null };
      const warned = (await examineQmp(lab.machine, control, never)).filter(({ disk }) => disk === 'devshared');
      expect(warned.map(({ what }) => what)).toContainEqual(expect.stringMatching(/error of this disk to the guest/));
    });

    it('is preceded by a look that says in plain words what is in the way, and changes nothing', async () => {
      const control = { kind: 'qmp' as const, socket: join(lab.folder, 'qmp'), guestAgentSocket: null };
      const look = async () => (await examineQmp(lab.machine, control, never)).filter(({ level }) => level !== 'ok');
      expect((await look()).map(({ disk, what }) => `${disk ?? ''}: ${what}`)).toEqual([
        'devdisk1: its image (raw) keeps no bitmap: it is read in full after each start of QEMU',
        `: the scratch folder ${lab.machine.scratchFolder} is not there`,
        ': points are crash-consistent',
      ]);
      await (await snapshot())[Symbol.asyncDispose]();
      await lab.restart();
      await lab.crash();
      expect((await look()).map(({ what }) => what)).toContain('its bitmap is inconsistent: QEMU did not end in order');
      const threads = await openQemuLab({ iothread: true });
      const all = await examineQmp(threads.machine, { ...control, socket: join(threads.folder, 'qmp') }, never);
      await threads[Symbol.asyncDispose]();
      expect(all.filter(({ what }) => what === 'it has an iothread: QEMU pushes it')).toHaveLength(2);
    });

    it('leaves out disks that are excluded, and says so', async () => {
      await using taken = await snapshot({ excludedDisks: ['devdisk1'] });
      expect(taken.disks.map(({ label }) => label)).toEqual(['devdisk0']);
      expect(taken.excluded).toEqual([{ label: 'devdisk1', reason: 'the configuration excludes it' }]);
      await taken[Symbol.asyncDispose]();
      await expect(snapshot({ excludedDisks: ['sda'] })).rejects.toThrow(
        /exclude names sda, and its disks are: devdisk0, devdisk1/,
      );
      await expect(snapshot({ excludedDisks: ['devdisk0', 'devdisk1'] })).rejects.toThrow(SourceNotFound);
    });

    it('says what is wrong: no monitor, no scratch folder, no guest agent, an NBD server in use', async () => {
      await expect(
        snapshot({ control: { kind: 'qmp', socket: join(lab.folder, 'none'), guestAgentSocket: null } }),
      ).rejects.toThrow(QmpUnreachable);
      await writeFile(join(lab.folder, 'file'), '');
      await expect(snapshot({ scratchFolder: join(lab.folder, 'file') })).rejects.toThrow(/can't be used \(EEXIST\)/);
      await expect(snapshot({}, { ...options, quiesce: 'require' })).rejects.toThrow(QuiesceUnavailable);
      const addr = { type: 'unix', data: { path: join(lab.folder, 'theirs') } };
      await lab.monitor.run('nbd-server-start', { addr }, never);
      await expect(snapshot()).rejects.toThrow(MachineBusy);
      await lab.monitor.run('nbd-server-stop', {}, never);
      await (await snapshot())[Symbol.asyncDispose]();
    });
  });
});

/** A bitmap, and so many blocks of 64 KiB written since, each with clean ones around it. */
async function scatter(path: string, bitmap: string, writes: number): Promise<void> {
  await qemuImg(['bitmap', '--add', '-g', '65536', '-f', 'qcow2', path, bitmap]);
  await using image = await serveImage({ path, format: 'qcow2', writable: true, contexts: [] }, never);
  const step = Math.floor(image.disk.capacityBytes / writes / 65_536) * 65_536;
  const bytes = new Uint8Array(512).fill(1);
  for (let i = 0; i < writes; i += 100)
    await Promise.all(Array.from({ length: 100 }, (_, j) => image.disk.write((i + j) * step, bytes, never)));
}

async function listed(disk: BlockSource | undefined, since: ReferencePoint): Promise<readonly Extent[]> {
  const extents: Extent[] = [];
  for await (const extent of disk?.changedExtents(since, never) ?? []) extents.push(extent);
  return extents;
}
