/** A machine of libvirt on another host, reached through a real ssh server. */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { sshNeeds } from '../peers/libvirt.ts';
import { differingDisks } from './differing-disks.ts';
import { type LibvirtSite, observeRun, openLibvirtSite } from './libvirt-site.ts';

const needs = await sshNeeds();

describe.skipIf(needs !== null)(`a machine of libvirt through ssh${needs === null ? '' : ` (${needs})`}`, () => {
  let site: LibvirtSite;
  beforeAll(async () => {
    // The second disk is raw, and keeps no bitmap.
    site = await openLibvirtSite({ ssh: true, dataFormat: 'raw' });
    await site.boot();
    const { exitCode, stderr } = await site.failkit('init', '--kit', 'kit');
    expect([exitCode, stderr]).toEqual([0, expect.anything()]);
  });
  afterAll(() => site?.[Symbol.asyncDispose]());

  it('gives points that are what its disks held, the raw one read in full each time', async () => {
    for (const [verb, reasons] of [
      ['seed', ['first full copy of this disk', 'first full copy of this disk']],
      ['sync', ['', 'this source has no changed block tracking']],
      ['sync', ['', 'this source has no changed block tracking']],
    ] as const) {
      const { outcome, oracle } = await observeRun(site, verb, 'web', '--json');
      expect([outcome.exitCode, outcome.stderr]).toEqual([0, expect.anything()]);
      const [published] = outcome.json<{ machines: { point: number; disks: { fullReadReason: string }[] }[] }>()
        .machines;
      expect(published?.disks.map(({ fullReadReason }) => fullReadReason)).toEqual(reasons);
      expect([...oracle.keys()]).toEqual(['vda', 'vdb']);
      expect(await differingDisks(site, String(published?.point), oracle)).toEqual([]);
      expect(await readdir(join(site.folder, 'scratch'))).toEqual([]);
    }
  });

  it('says that the other host does not let it in', async () => {
    await site.configure({ source: { libvirt: site.peer.sshUri?.replace('user-key', 'host-key') } });
    const { exitCode, stderr } = await site.failkit('sync', 'web');
    expect(exitCode).toBe(3);
    expect(stderr).toMatch(/can't be reached: .*Permission denied/s);
  });
});
