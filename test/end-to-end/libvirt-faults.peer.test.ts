/** A run at a machine of libvirt that is killed, that finds somebody else there, or no room: what the next one makes of it. */
import { chmod, mkdir, readdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { remedyOf } from '../../agent/remedy.ts';
import { libvirtNeeds } from '../peers/libvirt.ts';
import { expectCleanSync, expectSuccess, expectWrites, killAtEveryQuestion } from './kill-at-questions.ts';
import { type LibvirtSite, openLibvirtSite } from './libvirt-site.ts';
import { mountSmallDisk, type SmallDisk } from './small-disk.ts';

const needs = await libvirtNeeds();

describe.skipIf(needs !== null)(
  `a run at a machine of libvirt that goes wrong${needs === null ? '' : ` (${needs})`}`,
  () => {
    let site: LibvirtSite;
    let small: SmallDisk;
    beforeAll(async () => {
      // What is mounted later, libvirtd does not see.
      small = await mountSmallDisk(20);
      site = await openLibvirtSite();
      await site.boot();
      await expectOk('init', '--kit', 'kit');
      await expectOk('seed', 'web');
    });
    afterAll(async () => {
      await site?.[Symbol.asyncDispose]();
      await small?.[Symbol.asyncDispose]();
    });

    const expectOk = (...args: string[]) => expectSuccess(site, ...args);
    const expectRecovery = () => expectCleanSync(site);
    const expectGuestWrites = () => expectWrites(site);

    async function hasJob(): Promise<boolean> {
      return await site.peer.virsh('backup-dumpxml', 'web').then(
        () => true,
        () => false,
      );
    }

    it('is recovered from by the next one, whenever it was killed', async () => {
      await killAtEveryQuestion(site);
    });

    it.for([1, 3, 5, 8])('is recovered from when it was killed while it read, %i', async (time) => {
      const run = site.start('sync', 'web');
      await expect.poll(hasJob, { timeout: 60_000, interval: 20 }).toBe(true);
      await sleep(time * 150);
      run.kill('SIGKILL');
      await run.ended;
      await expectGuestWrites();
      // Its guard ends the job, and nothing is left to grow in the scratch folder.
      await expect.poll(hasJob, { timeout: 30_000 }).toBe(false);
      await expect.poll(() => readdir(join(site.folder, 'scratch')), { timeout: 30_000 }).toEqual([]);
      if (time > 3) await expectRecovery();
    });

    it('says who is there, and touches nothing of theirs', async () => {
      const foreign = join(site.folder, 'foreign');
      await mkdir(foreign, { mode: 0o777 });
      await chmod(foreign, 0o777);
      const document = `<domainbackup mode='pull'><server transport='unix' socket='${foreign}/s'/><disks><disk name='vda' backup='no'/>
      <disk name='vdb' backup='yes' type='file'><scratch file='${foreign}/scratch.qcow2'/></disk></disks></domainbackup>`;
      const checkpoint =
        "<domaincheckpoint><name>theirs</name><disks><disk name='vda' checkpoint='no'/><disk name='vdb' checkpoint='bitmap'/></disks></domaincheckpoint>";
      await writeFile(join(foreign, 'b.xml'), document);
      await writeFile(join(foreign, 'c.xml'), checkpoint);
      await site.peer.virsh('backup-begin', 'web', join(foreign, 'b.xml'), join(foreign, 'c.xml'));
      await expectFailure(site.failkit('sync', 'web'), 'MACHINE_BUSY', /another program reads it just now/);
      expect(await site.peer.virsh('backup-dumpxml', 'web')).toContain(`${foreign}/s`);
      await site.peer.virsh('domjobabort', 'web');
      await expect.poll(hasJob, { timeout: 60_000 }).toBe(false);
      await expectOk('sync', 'web');
      expect(await site.peer.virsh('checkpoint-list', 'web', '--name')).toContain('theirs');
      await site.peer.virsh('checkpoint-delete', 'web', 'theirs');
      await expectRecovery();
    });

    it('ends, and the guest goes on, when the scratch folder is full', async () => {
      await chmod(small.folder, 0o755);
      const source = { scratch: small.folder, scratchFreeMiBMin: 8 };
      await site.configure({ source, limits: { readMiBPerSecond: 1 } });
      await expectFailure(site.failkit('resync', 'web'), 'SCRATCH_FULL', /so that the guest goes on/);
      await expectGuestWrites();
      await small.fill();
      await expectFailure(site.failkit('sync', 'web'), 'SCRATCH_FULL', /make room/);
      await site.configure();
      await expectOk('sync', 'web');
      await expectRecovery();
    });

    it.for([
      { what: 'no such domain', source: { domain: 'web-9' }, code: 'SOURCE_NOT_FOUND', says: /no domain web-9/ },
      {
        what: 'no libvirt',
        source: { libvirt: 'qemu+unix:///system?socket=/no' },
        code: 'LIBVIRT_UNREACHABLE',
        says: /does it run/,
      },
      {
        what: 'a disk that is not there',
        source: { exclude: ['vdz'] },
        code: 'SOURCE_NOT_FOUND',
        says: /exclude names vdz/,
      },
      {
        what: 'a scratch folder that is none',
        source: { scratch: '/etc/hostname' },
        code: 'SOURCE_UNREADABLE',
        says: /can't be used/,
      },
      {
        what: 'another host without ssh',
        source: { libvirt: 'qemu+tls://kvm-9/system' },
        code: 'LIBVIRT_UNREACHABLE',
        says: /qemu\+ssh/,
      },
    ])('says that there is $what', async ({ source, code, says }) => {
      await site.configure({ source });
      await expectFailure(site.failkit('sync', 'web'), code, says);
      await site.configure();
    });

    it('says that virsh is missing', async () => {
      const bin = join(site.folder, 'bin');
      await mkdir(bin);
      for (const folder of ['/bin', '/usr/bin'])
        for (const tool of await readdir(folder))
          if (tool !== 'virsh') await symlink(join(folder, tool), join(bin, tool)).catch(() => undefined);
      await expectFailure(site.failkitWith({ PATH: bin }, 'sync', 'web'), 'VIRSH_MISSING', /install libvirt-clients/);
    });

    it('leaves out what can not be read, and the point says so', async () => {
      await site.configure({ source: { exclude: ['vda'] } });
      const { machines } = (await expectOk('sync', 'web', '--json')).json<{ machines: { partial: boolean }[] }>();
      expect(machines[0]?.partial).toBe(true);
      await site.configure();
    });

    it('says that the machine is shut off', async () => {
      await site.guest.killQemu();
      await expectFailure(site.failkit('sync', 'web'), 'MACHINE_NOT_RUNNING', /start it/);
    });

    async function expectFailure(run: ReturnType<LibvirtSite['failkit']>, code: string, says: RegExp): Promise<void> {
      const { exitCode, stderr } = await run;
      expect(exitCode, stderr).toBe(remedyOf(code)?.exitCode);
      expect(stderr).toMatch(says);
      expect(stderr).not.toMatch(/^\s+at /m);
    }
  },
);
