/** Disks of a running machine of libvirt come, grow, are laid under a snapshot, and go; what is known of their changes with them. */
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { makeDataDisk } from '../peers/guest.ts';
import { libvirtNeeds } from '../peers/libvirt.ts';
import { differingDisks } from './differing-disks.ts';
import { type LibvirtSite, observeRun, openLibvirtSite } from './libvirt-site.ts';

const needs = await libvirtNeeds();

describe.skipIf(needs !== null)(`disks of a machine of libvirt${needs === null ? '' : ` (${needs})`}`, () => {
  let site: LibvirtSite;
  beforeAll(async () => {
    site = await openLibvirtSite();
    await site.boot();
    await expectOk('init', '--kit', 'kit');
    await expectOk('seed', 'web');
  });
  afterAll(() => site?.[Symbol.asyncDispose]());

  async function expectOk(...args: string[]): Promise<void> {
    const { exitCode, stderr } = await site.failkit(...args);
    expect([exitCode, stderr]).toEqual([0, expect.anything()]);
  }

  /** Why each disk was read in full, by label; the bytes are compared, too. */
  async function sync(): Promise<Readonly<Record<string, string>>> {
    const { outcome, oracle } = await observeRun(site, 'sync', 'web', '--json');
    expect([outcome.exitCode, outcome.stderr]).toEqual([0, expect.anything()]);
    type Published = { point: number; disks: { label: string; fullReadReason: string }[] };
    const [published] = outcome.json<{ machines: Published[] }>().machines;
    expect(await differingDisks(site, String(published?.point), oracle)).toEqual([]);
    return Object.fromEntries(published?.disks.map(({ label, fullReadReason }) => [label, fullReadReason]) ?? []);
  }

  it('a new disk is read in full, and the others are not', async () => {
    const path = await makeDataDisk(site.folder, { format: 'qcow2', sizeMiB: 8, name: 'late' });
    const options = ['--driver', 'qemu', '--subdriver', 'qcow2', '--targetbus', 'virtio'];
    await site.peer.virsh('attach-disk', 'web', path, 'vdc', ...options);
    await site.guest.run('sleep 1; yes late | dd of=/dev/vdc bs=64k count=8 conv=fsync 2>/dev/null');
    expect(await sync()).toEqual({ vda: '', vdb: '', vdc: 'first full copy of this disk' });
    expect(await sync()).toEqual({ vda: '', vdb: '', vdc: '' });
  });

  it('a disk that grew is read in full once', async () => {
    await site.peer.virsh('blockresize', 'web', 'vdc', '12MiB');
    expect(await sync()).toMatchObject({ vda: '', vdb: '', vdc: expect.stringMatching(/size changed from 8388608/) });
    expect(await sync()).toMatchObject({ vda: '', vdb: '', vdc: '' });
  });

  it('a disk that went is not in the next point', async () => {
    await site.peer.virsh('detach-disk', 'web', 'vdc');
    await site.guest.run('sleep 1');
    expect(Object.keys(await sync())).toEqual(['vda', 'vdb']);
  });

  it('a disk in the place of another is read in full, though both were tracked', async () => {
    const path = join(site.folder, 'late.qcow2');
    await site.peer.virsh('detach-disk', 'web', 'vdc').catch(() => null);
    const options = ['--driver', 'qemu', '--subdriver', 'qcow2', '--targetbus', 'virtio'];
    await site.peer.virsh('attach-disk', 'web', path, 'vdc', ...options);
    expect(await sync()).toMatchObject({ vda: '', vdb: '' });
    await site.peer.virsh('detach-disk', 'web', 'vdc');
    await site.guest.run('sleep 1');
    const other = await makeDataDisk(site.folder, { format: 'qcow2', sizeMiB: 12, name: 'other' });
    await site.peer.virsh('attach-disk', 'web', other, 'vdc', ...options);
    expect((await sync()).vdc).toMatch(/^resync: .*its image is .*other\.qcow2.* and was .*late\.qcow2/);
    await site.peer.virsh('detach-disk', 'web', 'vdc');
    await site.guest.run('sleep 1');
    await sync();
  });

  it('a checkpoint that somebody removed is told, and all is read in full once', async () => {
    for (const name of await site.checkpoints()) await site.peer.virsh('checkpoint-delete', 'web', name);
    for (const reason of Object.values(await sync())) expect(reason).toMatch(/libvirt has no checkpoint failkit-/);
    expect(await sync()).toEqual({ vda: '', vdb: '' });
  });

  it('a disk that was laid under a snapshot is read in full, and the other is not', async () => {
    const files = ['--diskspec', 'vda,snapshot=no', '--diskspec', `vdb,file=${join(site.folder, 'overlay.qcow2')}`];
    await site.peer.virsh('snapshot-create-as', 'web', 'upper', '--disk-only', '--no-metadata', ...files);
    const index = site.disks.findIndex(({ label }) => label === 'vdb');
    const disks = site.disks.map((disk, i) =>
      i === index ? { ...disk, path: join(site.folder, 'overlay.qcow2') } : disk,
    );
    const { outcome, oracle } = await observeRun({ ...site, disks }, 'sync', 'web', '--json');
    expect([outcome.exitCode, outcome.stderr]).toEqual([0, expect.anything()]);
    type Published = { point: number; disks: { fullReadReason: string }[] };
    const [published] = outcome.json<{ machines: Published[] }>().machines;
    expect(published?.disks.map(({ fullReadReason }) => fullReadReason)).toEqual([
      '',
      expect.stringMatching(/its image is .*overlay\.qcow2/),
    ]);
    expect(await differingDisks(site, String(published?.point), oracle)).toEqual([]);
  });
});
