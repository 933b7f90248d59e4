/** A machine of libvirt, replicated while it runs and writes; every point is compared with a copy made by another program. */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { connectKvm } from '../../hypervisors/kvm/kvm-connection.ts';
import { examineLibvirt } from '../../hypervisors/kvm/libvirt/examine-libvirt.ts';
import { newestWrite } from '../peers/guest-writer.ts';
import { libvirtNeeds } from '../peers/libvirt.ts';
import { differingDisks } from './differing-disks.ts';
import { type LibvirtSite, observeRun, openLibvirtSite } from './libvirt-site.ts';

const needs = await libvirtNeeds();
const suffix = needs === null ? '' : ` (${needs})`;
const modes = [
  { mode: 'pull', iothread: false },
  { mode: 'push', iothread: true },
] as const;

interface Published {
  readonly point: number;
  readonly consistency: string;
  readonly frozenMs: number | null;
  readonly readBytes: number;
  readonly disks: readonly { readonly label: string; readonly fullReadReason: string }[];
}

describe.skipIf(needs !== null).for(modes)(
  `a machine of libvirt that writes, by $mode${suffix}`,
  ({ mode, iothread }) => {
    let site: LibvirtSite;
    beforeAll(async () => {
      site = await openLibvirtSite({ iothread });
      await site.boot();
      await expectOk(site.failkit('init', '--kit', 'kit'));
    });
    afterAll(() => site?.[Symbol.asyncDispose]());

    async function observe(verb: string): Promise<Published> {
      const { outcome, oracle } = await observeRun(site, verb, 'web', '--json');
      expect([outcome.exitCode, outcome.stderr]).toEqual([0, expect.anything()]);
      const [published] = outcome.json<{ machines: Published[] }>().machines;
      if (published === undefined) throw new Error('no point');
      expect([...oracle.keys()]).toEqual(['vda', 'vdb']);
      expect(await differingDisks(site, String(published.point), oracle)).toEqual([]);
      return published;
    }

    const reasonsOf = ({ disks }: Published) => disks.map(({ fullReadReason }) => fullReadReason);

    async function expectNothingLeft(): Promise<void> {
      expect(await readdir(join(site.folder, 'scratch'))).toEqual([]);
      await expect(site.peer.virsh('backup-dumpxml', site.guest.name)).rejects.toThrow();
      expect((await site.checkpoints()).length).toBeLessThanOrEqual(2);
    }

    it('gives points that are what its disks held at the instant of the snapshot', async () => {
      const seed = await observe('seed');
      expect(reasonsOf(seed)).toEqual(['first full copy of this disk', 'first full copy of this disk']);
      for (let round = 1; round <= 5; round++) {
        const sync = await observe('sync');
        expect(reasonsOf(sync)).toEqual(['', '']);
        expect(sync.readBytes).toBeLessThan(seed.readBytes);
        await expectNothingLeft();
      }
    });

    const control = () => ({ kind: 'libvirt' as const, uri: site.peer.uri, domain: 'web' });
    const kvmMachine = () => ({
      name: 'web',
      control: control(),
      scratchFolder: join(site.folder, 'scratch'),
      scratchFreeBytesMin: 1,
      excludedDisks: [],
      attachments: [],
      tag: '0a0b0c0d',
    });

    it('shows the doctor what a run will meet', async () => {
      const findings = await examineLibvirt(kvmMachine(), control(), new AbortController().signal);
      expect(findings.filter(({ level }) => level === 'failed')).toEqual([]);
      const warnings = findings.filter(({ level }) => level === 'warning').map(({ disk, what }) => `${disk}: ${what}`);
      expect(warnings).toEqual(mode === 'push' ? [expect.stringMatching(/^vdb: it has an iothread/)] : []);
      expect(findings.map(({ what }) => what)).toContain('the guest agent is connected');
      expect(findings[0]?.what).toMatch(/^libvirt \d+\.\d+\.\d+, QEMU \d+\.\d+/);
    });

    it('is read in the way that its disks need, which nobody said', async () => {
      const machine = {
        name: 'web',
        control: { kind: 'libvirt' as const, uri: site.peer.uri, domain: 'web' },
        scratchFolder: join(site.folder, 'scratch'),
        scratchFreeBytesMin: 1,
        excludedDisks: [],
        attachments: [],
        tag: '0a0b0c0d',
      };
      await using connection = connectKvm([machine]);
      const signal = new AbortController().signal;
      {
        await using taken = await connection.snapshot(
          { name: 'web' },
          { quiesce: 'off', whenChanging: 'refuse' },
          signal,
        );
        expect(taken.disks.map(({ label }) => label)).toEqual(['vda', 'vdb']);
        // QEMU shows the disks for as long as they are read, or it is done with its copies before.
        const job = await site.peer.virsh('backup-dumpxml', site.guest.name).catch(() => 'no job');
        expect(job).toMatch(mode === 'pull' ? /mode='pull'/ : /^no job$/);
      }
      for (const name of await site.checkpoints())
        if (name.includes(machine.tag)) await site.peer.virsh('checkpoint-delete', site.guest.name, name);
      await expectNothingLeft();
    });

    it('is application-consistent where its guest agent freezes it, and writes on afterwards', async () => {
      await site.configure({ machine: { quiesce: 'require' } });
      const outcome = await expectOk(site.failkit('sync', 'web', '--json'));
      await site.configure();
      const [published] = outcome.json<{ machines: Published[] }>().machines;
      expect(published?.consistency).toBe('application-consistent');
      expect(published?.frozenMs).toBeGreaterThan(0);
      const before = await newestWrite(site.guest);
      await site.guest.run('sleep 0.5');
      expect(await newestWrite(site.guest)).toBeGreaterThan(before);
    });

    it('is read in full, and says why, after its QEMU was killed', async () => {
      await site.guest.killQemu();
      await site.boot();
      const resync = await observe('sync');
      for (const reason of reasonsOf(resync)) expect(reason).toMatch(/^resync: .*bitmap .* is missing or broken/);
      expect(reasonsOf(await observe('sync'))).toEqual(['', '']);
      await expectNothingLeft();
    });
  },
);

async function expectOk(run: ReturnType<LibvirtSite['failkit']>) {
  const outcome = await run;
  expect([outcome.exitCode, outcome.stderr]).toEqual([0, expect.anything()]);
  return outcome;
}
