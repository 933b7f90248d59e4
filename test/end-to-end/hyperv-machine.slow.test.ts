/** A machine of Hyper-V, from the configuration to the restored disk; the host is a model of our own, and shows nothing about Windows. */
import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readDisk } from '../../hypervisors/vhdx/chain-reader.ts';
import { openChain } from '../../hypervisors/vhdx/image-chain.ts';
import { openLocalFile } from '../../hypervisors/vhdx/local-file.ts';
import type { Outcome } from './failkit-process.ts';
import { type HypervSite, openHypervSite } from './hyperv-site.ts';

const never = new AbortController().signal;
/** A run asks fewer questions. */
const stepsMax = 60;
/** Each step takes a second or two. */
const stride = 3;

interface Published {
  readonly point: number;
  readonly consistency: string;
  readonly partial: boolean;
  readonly readBytes: number;
  readonly disks: readonly { readonly label: string; readonly fullReadReason: string }[];
}

describe('a machine of Hyper-V', () => {
  let site: HypervSite;
  beforeAll(async () => {
    site = await openHypervSite();
    expect((await site.failkit('init', '--kit', 'kit')).exitCode).toBe(0);
  });
  afterAll(async () => {
    await site?.[Symbol.asyncDispose]();
  });

  /** The point is what the disks hold; no checkpoint is left, and one reference point. */
  async function observe(verb: string): Promise<Published> {
    const published = pointOf(await site.failkit(verb, 'web', '--json'));
    expect(await site.differing(String(published.point))).toEqual([]);
    expectTidy();
    return published;
  }

  function expectTidy(): void {
    site.model(({ host }) => {
      expect([host.checkpoints, host.points.length, host.merging]).toEqual([[], 1, 0]);
    });
  }

  it('is listed, and looked at by doctor', async () => {
    const { machines } = (await site.failkit('machines', '--json')).json<{ machines: object[] }>();
    expect(machines).toMatchObject([
      { ...{ source: 'hv', protectedAs: 'web', tracking: 'on', refusal: null }, disks: [{ label: 'scsi0:0' }, {}] },
    ]);
    await rm(join(site.folder, 'starts'));
    const { findings } = (await site.failkit('doctor', '--json')).json<{ findings: { check: string }[] }>();
    expect(findings.filter(({ check }) => ['source hv', 'machine web'].includes(check))).toMatchObject([
      { outcome: 'ok', what: /HV-NODE-1, .*PowerShell 5\.1/ },
      { outcome: 'ok', what: /scsi0:0 3\.0 MiB, .*version 9\.0, tracks its changes/ },
    ]);
    // One worker for the host and its machine.
    expect(await readFile(join(site.folder, 'starts'), 'utf8')).toBe('.');
  });

  it('gives points that are what its disks held, and reads only what changed', async () => {
    const seed = await observe('seed');
    expect([seed.consistency, seed.disks.length, seed.partial]).toEqual(['application-consistent', 2, false]);
    for (let round = 0; round < 2; round++) {
      site.write();
      const sync = await observe('sync');
      expect(sync.disks.map(({ fullReadReason }) => fullReadReason)).toEqual(['', '']);
      expect(sync.readBytes).toBeLessThan(512 * 1024);
    }
  });

  it('says why it reads a disk in full, where Hyper-V forgot what changed', async () => {
    site.write();
    site.model(({ host }) => {
      host.disk('scsi0:1').epoch++;
    });
    const { disks } = await observe('sync');
    expect(disks.map(({ fullReadReason }) => fullReadReason)).toEqual(['', expect.stringMatching(/tracking id/)]);
  });

  it('is recovered from by the next run, whichever step it was killed at', async () => {
    let killed = 0;
    for (let step = 1; step <= stepsMax; step += stride) {
      site.write();
      site.model((model) => {
        model.killAt = step;
        model.happens = step % 2 === 0;
      });
      const { exitCode } = await site.failkit('sync', 'web', '--json');
      site.model((model) => {
        model.killAt = 0;
      });
      if (exitCode === 0) break;
      killed++;
    }
    expect(killed).toBeGreaterThan(4);
    expect(killed).toBeLessThan(stepsMax / stride);
    const { disks } = await observe('sync');
    expect(disks.map(({ fullReadReason }) => fullReadReason)).toEqual(['', '']);
  });

  it('is restored as disks that Hyper-V attaches', async () => {
    const to = join(site.folder, 'vhdx');
    expect((await site.failkit('restore', 'web', '--to', to, '--format', 'vhdx')).exitCode).toBe(0);
    await using chain = await openChain(join(to, 'scsi0_0.vhdx'), { openFile: openLocalFile, onWindows: false }, never);
    const { content } = site.model(({ host }) => host.disk('scsi0:0'));
    const bytes = new Uint8Array(content.length);
    if (chain !== null) await readDisk(chain, 0, bytes, never);
    expect(content.equals(bytes)).toBe(true);
    expect(JSON.parse(await readFile(join(to, 'attachments/hyperv-machine.json'), 'utf8'))).toMatchObject({
      ...{ generation: 2, firmware: 'uefi', secureBoot: true, tpmContent: 'none', processors: 2, memoryMiB: 4096 },
      disks: [{ label: 'scsi0:0' }, { label: 'scsi0:1' }],
    });
    expect(await readFile(join(to, 'attachments/hyperv-settings.json'), 'utf8')).toMatch(
      /Msvm_VirtualSystemSettingData/,
    );
  });

  it('says which disk it leaves out, and that the point is partial', async () => {
    await site.configure({ source: { exclude: ['scsi0:1'] } });
    const published = pointOf(await site.failkit('sync', 'web', '--json'));
    expect([published.partial, published.disks.map(({ label }) => label)]).toEqual([true, ['scsi0:0']]);
    await site.configure();
  });

  it("ends with a message, and touches nothing, where another product's recovery checkpoint is there", async () => {
    const theirs = site.model(({ host }) => host.makeCheckpoint('another product', true).id);
    const { exitCode, stderr } = await site.failkit('sync', 'web');
    expect([exitCode, stderr]).toEqual([3, expect.stringMatching(/recovery checkpoint of another product/)]);
    site.model(({ host }) => {
      expect(host.checkpoints.map(({ id }) => id)).toEqual([theirs]);
    });
  });
});

function pointOf({ exitCode, stderr, json }: Outcome): Published {
  expect([exitCode, stderr]).toEqual([0, expect.anything()]);
  const [published] = json<{ machines: Published[] }>().machines;
  if (published === undefined) throw new Error('no machine in the answer');
  return published;
}
