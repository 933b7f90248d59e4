/** The acceptance script as an administrator runs it, at the simulated vCenter: it passes there, and it finds a tracking that lies. */
import { execFile } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { recordOutput } from '../canary.ts';
import { openVsphereSite, type VsphereSite, vsphereNeeds } from '../end-to-end/vsphere-site.ts';
import { standInFor } from '../peers/vddk.ts';

const needs = await vsphereNeeds();
const script = join(import.meta.dirname, '../../docs/operations/vsphere-acceptance.mjs');

describe.skipIf(needs !== null)(`the acceptance script for vSphere${needs === null ? '' : ` (${needs})`}`, () => {
  let site: VsphereSite;
  beforeAll(async () => {
    site = await openVsphereSite(4 * 2 ** 20);
    // Slow enough that it can be killed in the middle.
    await site.vddk.set({ ...standInFor(site.vcsim), 'read-latency-us': 100_000 });
    for (const { live, capacityBytes } of await site.vcsim.disks(site.machine))
      await writeFile(live, Buffer.alloc(capacityBytes, 7));
  });
  afterAll(() => site?.[Symbol.asyncDispose]());

  async function run(...more: readonly string[]): Promise<{ readonly code: number; readonly report: string }> {
    const { vcsim, vddk, folder } = site;
    const pin = new X509Certificate(await readFile(vcsim.certificate.certFile)).fingerprint256;
    const args = [
      ...['--server', `${vcsim.host}:${vcsim.port}`, '--user', vcsim.user, '--password-file', join(folder, 'password')],
      ...['--thumbprint', pin, '--machine', `DC0/vm/${site.machine}`, '--libdir', vddk.libdir, '--nbdkit', vddk.nbdkit],
      ...['--work', join(folder, 'acceptance'), '--report', join(folder, 'report.md'), '--yes', ...more],
    ];
    const code = await new Promise<number>((resolve) => {
      execFile(process.execPath, [script, ...args], (error, stdout, stderr) => {
        recordOutput(stdout + stderr);
        resolve(typeof error?.code === 'number' ? error.code : 0);
      });
    });
    return { code, report: await readFile(join(folder, 'report.md'), 'utf8') };
  }

  it('passes, and writes what it found', async () => {
    const { code, report } = await run('--datastore', 'LocalDS_0', '--pool', 'DC0_H0/Resources');
    expect([code, report]).toEqual([0, expect.stringContaining(': passed')]);
    // On a machine that is busy enough, the run is over before the script sees its snapshot.
    expect(report).toMatch(/killed in the middle.*(1 snapshot was there after the kill|the run was over)/);
    expect(report.match(/\| ok \|/g)?.length).toBeGreaterThanOrEqual(11);
    expect(report).toContain('- [ ] The datastore has its free space back');
  });

  it('fails where tracking leaves something out', async () => {
    await site.vcsim.behave({ omittedAreas: 1 });
    await site.vddk.set(standInFor(site.vcsim));
    const writing = setInterval(() => void scribble(), 20);
    const { code, report } = await run('--syncs', '0').finally(() => clearInterval(writing));
    expect([code, report]).toEqual([1, expect.stringMatching(/tracking told the truth \| FAILED/)]);
  });

  /** Only before the machine is asked to be still would it be fair; here it stands for a change that is not reported. */
  async function scribble(): Promise<void> {
    const [disk] = await site.vcsim.disks(site.machine);
    if (disk !== undefined)
      await writeFile(disk.live, Buffer.alloc(4096, Date.now() % 251), {
        flag: 'r+',
      });
  }
});

it('the acceptance script for vSphere empties no folder that it did not make, and says what it needs', async () => {
  const ask = (...args: readonly string[]) =>
    new Promise<readonly [unknown, string]>((resolve) => {
      execFile(process.execPath, [script, ...args], (error, _, stderr) => resolve([error?.code, stderr]));
    });
  expect(await ask()).toEqual([2, expect.stringMatching(/^Usage: node vsphere-acceptance\.mjs/)]);
  const needed = ['--server', 'a', '--user', 'u', '--password-file', 'p', '--machine', 'm', '--thumbprint', 'ab'];
  const here = import.meta.dirname;
  expect(await ask(...needed, '--work', here)).toEqual([
    2,
    expect.stringContaining(`${here} is there, and this script`),
  ]);
});
