/**
 * A point becomes a machine of the simulated vCenter again: another one, whose disks are files that were uploaded there. qemu-img reads
 * them by the descriptor that was written beside them. What a real host makes of them is not shown.
 */
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { open, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { qemuImg } from '../peers/guest.ts';
import type { Outcome } from './failkit-process.ts';
import { openVsphereSite, type VsphereSite, vsphereNeeds } from './vsphere-site.ts';

const needs = await vsphereNeeds();
const mebibyte = 2 ** 20;
const capacityBytes = 2 * mebibyte + 512 * 3;
const stepsMax = 40;
const nvram = randomBytes(60_000);

interface Restored {
  readonly defined: readonly string[];
  readonly excluded: readonly unknown[];
}

describe.skipIf(needs !== null)(`a machine restored to vSphere${needs === null ? '' : ` (${needs})`}`, () => {
  let site: VsphereSite;
  let content: ReadonlyMap<string, Buffer>;
  beforeAll(async () => {
    site = await openVsphereSite(capacityBytes);
    await site.vcsim.addDisk(site.machine, mebibyte);
    for (const { live, capacityBytes: size } of await site.vcsim.disks(site.machine)) await scribble(live, size);
    await writeFile(await site.vcsim.pathOf(`[LocalDS_0] ${site.machine}/${site.machine}.nvram`), nvram);
    await expectOk('init', '--kit', 'kit');
    await expectOk('seed', 'web');
    const disks = await site.vcsim.disks(site.machine);
    content = new Map(await Promise.all(disks.map(async ({ label, live }) => [label, await readFile(live)] as const)));
  });
  afterAll(() => site?.[Symbol.asyncDispose]());
  beforeEach(async () => {
    await site.vcsim.heal();
    await site.vcsim.killAt(0, 0);
  });

  async function expectOk(...args: readonly string[]): Promise<Outcome> {
    const outcome = await site.failkit(...args);
    expect([outcome.exitCode, outcome.stderr]).toEqual([0, expect.anything()]);
    return outcome;
  }

  const to = ['--vsphere', 'lab', '--datastore', 'LocalDS_0', '--pool', 'DC0_H0/Resources'];
  const restoring = (name: string, ...more: readonly string[]): readonly string[] => [
    ...['restore', 'web', '--to', join(site.folder, `out-${name}`), ...to, '--name', name, ...more],
  ];

  /** What was uploaded is what the first machine's disks held, also for somebody who reads it by its descriptor. */
  async function expectWhole(name: string): Promise<void> {
    const disks = await site.vcsim.disks(name);
    expect(disks.map(({ label }) => label)).toEqual([...content.keys()]);
    for (const { label, file, live } of disks) {
      expect(content.get(label)?.equals(await readFile(live))).toBe(true);
      const copy = join(site.folder, 'copy.raw');
      await qemuImg(['convert', '-f', 'vmdk', '-O', 'raw', await site.vcsim.pathOf(file), copy]);
      expect(content.get(label)?.equals(await readFile(copy))).toBe(true);
      await rm(copy);
    }
  }

  async function protectAs(machine: string, name: string): Promise<string> {
    const source = { path: `DC0/vm/${name}` };
    await site.configure({ machine: { name: machine }, source });
    await expectOk('seed', machine);
    const folder = join(site.folder, `out-${machine}`);
    await expectOk('restore', machine, '--to', folder);
    await site.configure();
    return folder;
  }

  it('has its disks, its firmware and its UEFI variables, a name and an identity of its own, and no network', async () => {
    const { defined } = (await expectOk(...restoring('first', '--json'))).json<Restored>();
    expect(defined).toEqual([
      expect.stringMatching(
        /^created as first at vSphere .*, powered off: \[LocalDS_0\] first-[0-9a-f]{8}\/first\.vmx/,
      ),
      'the new machine is without its network card: --network connects them',
      'the new machine is without VirtualCdrom',
    ]);
    await expectWhole('first');
    const folder = await protectAs('again', 'first');
    for (const [label, bytes] of content)
      expect(bytes.equals(await readFile(join(folder, `${label.replace(':', '_')}.raw`)))).toBe(true);
    expect(nvram.equals(await readFile(join(folder, 'attachments/vsphere.nvram')))).toBe(true);
    const config = await readFile(join(folder, 'attachments/vsphere-config.xml'), 'utf8');
    const original = await readFile(join(site.folder, 'out-first/attachments/vsphere-config.xml'), 'utf8');
    expect(config).not.toMatch(/VirtualE1000|VirtualVmxnet/);
    for (const kept of ['guestId', 'version', 'firmware', 'memoryMB', 'numCPU'])
      expect([kept, settingIn(config, kept)]).toEqual([kept, settingIn(original, kept)]);
    for (const own of ['instanceUuid', 'uuid'])
      expect([own, settingIn(config, own)]).not.toEqual([own, settingIn(original, own)]);
  });

  it('is connected to the network that is asked for', async () => {
    await expectOk(...restoring('standard', '--network', 'VM Network'));
    await expectOk(...restoring('distributed', '--network', 'DC0_DVPG0'));
    const ofStandard = await readFile(join(await protectAs('s', 'standard'), 'attachments/vsphere-config.xml'), 'utf8');
    expect(ofStandard).toMatch(/VirtualEthernetCardNetworkBackingInfo[\s\S]*VM Network/);
    const folder = await protectAs('d', 'distributed');
    expect(await readFile(join(folder, 'attachments/vsphere-config.xml'), 'utf8')).toMatch(/<portgroupKey/);
  });

  it('is gone on with, whichever step it was killed at, and made once', async () => {
    let killed = 0;
    for (let step = 1; step <= stepsMax; step++) {
      const run = site.start(...restoring('killed'));
      await site.vcsim.killAt(run.pid, step);
      const { exitCode } = await run.ended;
      if (exitCode === 0 || exitCode === 8) break;
      killed++;
      expect(exitCode).toBe(-1);
    }
    // Killed at the last step of all, it was made, and nobody heard of it.
    expect(killed).toBeGreaterThan(6);
    expect(killed).toBeLessThan(stepsMax);
    await expectWhole('killed');
  });

  it('is made once where the answer is lost, and disks that were whole are not sent again', async () => {
    await site.vcsim.hurt({ method: 'CreateVM_Task', how: 'fault', fault: 'NoDiskSpace' });
    const failed = await site.failkit(...restoring('lost'));
    expect([failed.exitCode, failed.stderr]).toEqual([3, expect.stringContaining('NoDiskSpace')]);
    await site.vcsim.hurt({ method: 'CreateVM_Task', how: 'lose-answer' });
    await site.vcsim.hurt({ method: 'PUT', how: 'lose-answer' });
    await site.vcsim.calls();
    const { defined } = (await expectOk(...restoring('lost', '--json'))).json<Restored>();
    expect(defined[0]).toMatch(/\(0 B uploaded, 3\.0 MiB were there from an earlier try\)/);
    const calls = await site.vcsim.calls();
    // The UEFI variables, twice: the first answer was lost.
    expect([calls.CreateVM_Task, calls.PUT]).toEqual([1, 2]);
    await expectWhole('lost');
  });

  it('is not begun where the datastore has no room, and says so where it fills up on the way', async () => {
    await site.vcsim.setFree('LocalDS_0', 1000);
    const refused = await site.failkit(...restoring('full'));
    expect([refused.exitCode, refused.stderr]).toEqual([
      3,
      expect.stringMatching(/datastore LocalDS_0 has 1000 bytes left.*need \d+/),
    ]);
    expect(existsSync(join(site.folder, 'out-full'))).toBe(false);
    await site.vcsim.setFree('LocalDS_0', 2 ** 40);
    await site.vcsim.hurt({ method: 'PUT', how: 'fault' });
    const full = await site.failkit(...restoring('full'));
    expect([full.exitCode, full.stderr]).toEqual([
      3,
      expect.stringMatching(/scsi0-0-flat\.vmdk \(status 507: no space/),
    ]);
    await expectOk(...restoring('full'));
    await expectWhole('full');
  });

  it.for([
    [['--name', 'DC0_H0_VM0'], 8, /has a machine DC0_H0_VM0 there already: choose another --name/],
    [['--name', 'a/b'], 2, /no name for a machine/],
    [['--datastore', 'LocalDS_9'], 2, /no datastore LocalDS_9: there is DC0\/datastore\/LocalDS_0/],
    [['--pool', 'DC0_C9/Resources'], 2, /no resource pool DC0_C9\/Resources: there is .*DC0_C0\/Resources/],
    [['--vm-folder', 'DC0/host'], 2, /no folder of machines DC0\/host: there is DC0\/vm/],
    [['--network', 'VM Netwrk'], 2, /no network VM Netwrk: there is .*DC0\/network\/VM Network/],
    [['--vsphere', 'elsewhere'], 2, /no source elsewhere of vSphere: there is lab/],
    [['--disk', 'scsi0:0'], 2, /leave out --disk/],
    [['--qemu', 'script'], 2, /made at one place/],
  ] as const)('is not begun with %s', async ([changed, exitCode, says]) => {
    const outcome = await site.failkit(...restoring('wrong'), ...changed);
    expect([outcome.exitCode, outcome.stderr]).toEqual([exitCode, expect.stringMatching(says)]);
    expect(outcome.stderr).not.toMatch(/\n\s+at /);
    expect(existsSync(join(site.folder, 'out-wrong'))).toBe(false);
  });

  it('is not begun without a place for its files, nor from a point that no vSphere was read for', async () => {
    const out = ['restore', 'web', '--to', join(site.folder, 'out-no')];
    const lacking = await site.failkit(...out, '--vsphere', 'lab');
    expect([lacking.exitCode, lacking.stderr]).toEqual([2, expect.stringContaining('needs a --datastore')]);
    const loose = await site.failkit(...out, '--datastore', 'LocalDS_0');
    expect([loose.exitCode, loose.stderr]).toEqual([2, expect.stringContaining('--datastore is for --vsphere')]);
    await writeFile(join(site.folder, 'image.raw'), randomBytes(mebibyte));
    const image = {
      name: 'image',
      quiesce: 'off',
      source: { type: 'image', disks: [{ label: 'sda', path: 'image.raw' }] },
    };
    await site.configure({ machine: image });
    await expectOk('seed', 'image');
    const foreign = await site.failkit('restore', 'image', '--to', join(site.folder, 'out-no'), ...to);
    expect([foreign.exitCode, foreign.stderr]).toEqual([2, expect.stringMatching(/holds no configuration of vSphere/)]);
    await site.configure();
  });
});

function settingIn(config: string, name: string): string | null {
  return new RegExp(`<${name}[^>]*>([^<]*)</${name}>`).exec(config)?.[1] ?? null;
}

async function scribble(path: string, size: number): Promise<void> {
  await using file = await open(path, 'r+');
  for (const offset of [0, 300_000, size - 70_000]) await file.write(randomBytes(70_000), 0, 70_000, offset);
}
