/**
 * A machine of a vCenter of our own making, read through real nbdkit with a stand-in for VMware's library, while it is written to: what
 * it shows about a real vCenter is nothing.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { standInFor } from '../peers/vddk.ts';
import { differingDisks } from './differing-disks.ts';
import type { FailkitProcess, Outcome } from './failkit-process.ts';
import { copiesOf, openVsphereSite, type VsphereSite, vsphereNeeds, writeOn } from './vsphere-site.ts';

const needs = await vsphereNeeds();
/** A run has fewer steps. */
const stepsMax = 40;

interface Published {
  readonly point: number;
  readonly consistency: string;
  readonly partial: boolean;
  readonly readBytes: number;
  readonly disks: readonly { readonly label: string; readonly fullReadReason: string }[];
}

describe.skipIf(needs !== null)(`a machine of vSphere that writes${needs === null ? '' : ` (${needs})`}`, () => {
  let site: VsphereSite;
  let guest: AsyncDisposable;
  beforeAll(async () => {
    site = await openVsphereSite();
    await site.vcsim.addDisk(site.machine, 5 * 1024 * 1024 + 512 * 3);
    guest = await writeOn(site);
    await expectOk('init', '--kit', 'kit');
  });
  afterAll(async () => {
    await guest?.[Symbol.asyncDispose]();
    await site?.[Symbol.asyncDispose]();
  });

  async function expectOk(...args: readonly string[]): Promise<Outcome> {
    const outcome = await site.failkit(...args);
    expect([outcome.exitCode, outcome.stderr]).toEqual([0, expect.anything()]);
    return outcome;
  }

  /** The point is what the disks held at the snapshot; no snapshot and no nbdkit is left. */
  async function observe(verb: string): Promise<Published> {
    const published = pointOf(await expectOk(verb, 'web', '--json'));
    expect(await differingDisks(site, String(published.point), await copiesOf(site))).toEqual([]);
    await expectNothingLeft();
    return published;
  }

  async function expectNothingLeft(): Promise<void> {
    expect((await site.vcsim.points(site.machine)).filter(({ gone }) => !gone)).toEqual([]);
    expect(nbdkits(site)).toEqual([]);
  }

  it('gives points that are what its disks held at the instant of the snapshot', async () => {
    const seed = await observe('seed');
    expect(seed.disks.map(({ label }) => label)).toEqual(['scsi0:0', expect.stringMatching(/^scsi0:/)]);
    expect(seed.consistency).toBe('application-consistent');
    await site.vcsim.behave({ windowBytes: 1024 * 1024, extentsMax: 3, overReported: 1 });
    for (let round = 1; round <= 3; round++) {
      const sync = await observe('sync');
      expect(sync.disks.map(({ fullReadReason }) => fullReadReason)).toEqual(['', '']);
    }
    await site.vcsim.behave({});
  });

  it('shows its password to nobody while it runs', async () => {
    await site.vddk.set({ ...standInFor(site.vcsim), 'read-latency-us': 20_000 });
    const run = site.start('resync', 'web');
    const seen = new Set<string>();
    let over = false;
    void run.ended.then(() => {
      over = true;
    });
    while (!over) {
      for (const pid of [run.pid, ...nbdkits(site)])
        for (const file of ['cmdline', 'environ']) {
          const told = textOf(pid, file);
          if (told.includes(site.vcsim.password)) throw new Error(`${file} of ${pid} holds the password`);
          if (told !== '') seen.add(`${pid === run.pid ? 'agent' : 'nbdkit'} ${file}`);
        }
      await sleep(10);
    }
    expect((await run.ended).exitCode).toBe(0);
    expect([...seen].sort()).toEqual(['agent cmdline', 'agent environ', 'nbdkit cmdline', 'nbdkit environ']);
    await site.vddk.set(standInFor(site.vcsim));
    await expectNothingLeft();
  });

  it('is recovered from by the next run, whichever step it was killed at', async () => {
    let killed = 0;
    for (let step = 1; step <= stepsMax; step++) {
      const run = site.start('sync', 'web', '--json');
      await site.vcsim.killAt(run.pid, step);
      const { exitCode } = await run.ended;
      if (exitCode === 0) break;
      killed++;
      expect(ours(await site.vcsim.points(site.machine))).toBeLessThanOrEqual(1);
      await untilNoNbdkit(site);
    }
    await site.vcsim.killAt(0, 0);
    expect(killed).toBeGreaterThan(4);
    expect(killed).toBeLessThan(stepsMax);
    await observe('sync');
  });

  it.for([300, 700, 1_200])('is recovered from when it was killed while it read, after %i ms', async (afterMs) => {
    await site.vddk.set({ ...standInFor(site.vcsim), 'read-latency-us': 50_000 });
    const run = site.start('resync', 'web');
    while (nbdkits(site).length === 0) await sleep(10);
    await sleep(afterMs);
    run.kill('SIGKILL');
    await run.ended;
    await untilNoNbdkit(site);
    await site.vddk.set(standInFor(site.vcsim));
    const sync = await observe('sync');
    expect(sync.disks.map(({ fullReadReason }) => fullReadReason)).toEqual(['', '']);
  });

  it("goes on where nbdkit is killed, and leaves somebody else's snapshot alone", async () => {
    const theirs = await site.vcsim.addSnapshot(site.machine, 'before the upgrade');
    await site.vddk.set({ ...standInFor(site.vcsim), 'read-latency-us': 20_000 });
    const run = site.start('resync', 'web', '--json');
    await killSome(run, site, 2);
    const published = pointOf(await run.ended);
    expect(await differingDisks(site, String(published.point), await copiesOf(site))).toEqual([]);
    await site.vddk.set(standInFor(site.vcsim));
    const left = (await site.vcsim.points(site.machine)).filter(({ gone }) => !gone);
    expect(left.map(({ snapshot, name }) => [snapshot, name])).toEqual([[theirs, 'before the upgrade']]);
    await site.vcsim.removeSnapshot(site.machine, theirs);
    await observe('sync');
  });

  it('finds out that tracking left something out, and reads the disk in full', async () => {
    // A whole lap of spot checks in each run.
    await site.configure({ machine: { spotCheck: { everyDays: 1e-6 } } });
    await site.vcsim.behave({ omittedAreas: 1 });
    const reasons = (await observe('sync')).disks.map(({ fullReadReason }) => fullReadReason);
    expect(reasons).toEqual([
      expect.stringMatching(/^resync: spot check: block \d+ of disk scsi0:0/),
      expect.anything(),
    ]);
    await site.vcsim.behave({});
    await expectOk('acknowledge', 'web');
    await site.configure();
    expect((await observe('sync')).disks.map(({ fullReadReason }) => fullReadReason)).toEqual(['', '']);
  });

  it('says which disk it leaves out, and that the point is partial', async () => {
    await site.configure({ source: { exclude: ['scsi0:0'] } });
    const published = pointOf(await expectOk('sync', 'web', '--json'));
    expect([published.partial, published.disks.length]).toEqual([true, 1]);
    await site.configure();
  });
});

function pointOf({ exitCode, stderr, json }: Outcome): Published {
  expect([exitCode, stderr]).toEqual([0, expect.anything()]);
  const [published] = json<{ machines: Published[] }>().machines;
  if (published === undefined) throw new Error('no machine in the answer');
  return published;
}

function ours(points: Awaited<ReturnType<VsphereSite['vcsim']['points']>>): number {
  return points.filter(({ gone, name }) => !gone && name.startsWith('failkit-')).length;
}

/** Of this site: other tests have their own. */
function nbdkits({ vddk }: VsphereSite): readonly number[] {
  const pids = readdirSync('/proc').filter((entry) => /^\d+$/.test(entry));
  return pids.map(Number).filter((pid) => textOf(pid, 'cmdline').includes(`\0libdir=${vddk.libdir}\0`));
}

async function untilNoNbdkit(site: VsphereSite): Promise<void> {
  for (let attempt = 0; nbdkits(site).length > 0; attempt++) {
    if (attempt > 200) throw new Error('nbdkit outlives the agent');
    await sleep(20);
  }
}

async function killSome(run: FailkitProcess, site: VsphereSite, times: number): Promise<void> {
  let over = false;
  void run.ended.then(() => {
    over = true;
  });
  for (let killed = 0; killed < times && !over; killed++) {
    while (!over && nbdkits(site).length === 0) await sleep(5);
    await sleep(100);
    for (const pid of nbdkits(site).slice(0, 1)) process.kill(pid, 'SIGKILL');
  }
}

function textOf(pid: number, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8');
  } catch {
    return ''; // It ended meanwhile.
  }
}
