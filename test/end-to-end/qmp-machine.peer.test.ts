/** A machine of plain QEMU, replicated while it runs and writes; every point is compared with a copy made by another program. */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { QmpRefused } from '../../hypervisors/kvm/kvm-errors.ts';
import { marksOf } from '../../hypervisors/kvm/marks.ts';
import { listDisks } from '../../hypervisors/kvm/qemu-disks.ts';
import { QmpClient } from '../../hypervisors/kvm/qmp-client.ts';
import { takePoint } from '../../hypervisors/kvm/take-point.ts';
import { trackDisk } from '../../hypervisors/kvm/tracking-bitmaps.ts';
import { bootGuest, guestNeeds } from '../peers/guest.ts';
import { checkWritten, newestWrite } from '../peers/guest-writer.ts';
import { tapQmp } from '../peers/qmp-tap.ts';
import { differingDisks } from './differing-disks.ts';
import { observeRun, openQmpSite, type QmpSite } from './qmp-site.ts';

const needs = await guestNeeds();
const never = new AbortController().signal;
const suffix = needs === null ? '' : ` (${needs})`;

interface Published {
  readonly point: number;
  readonly consistency: string;
  readonly frozenMs: number | null;
  readonly readBytes: number;
  readonly disks: readonly { readonly label: string; readonly fullReadReason: string }[];
}

const modes = [
  { mode: 'pull', disks: 'disks', iothread: false },
  { mode: 'push', disks: 'disks that have threads of their own', iothread: true },
] as const;

describe.skipIf(needs !== null).for(modes)(`a machine of QEMU that writes to $disks${suffix}`, ({ mode, iothread }) => {
  let site: QmpSite;
  const newest = new Map<number, number>();
  beforeAll(async () => {
    site = await openQmpSite({ iothread });
    await site.boot();
    await expectOk(site.failkit('init', '--kit', 'kit'));
  });
  afterAll(() => site?.[Symbol.asyncDispose]());

  async function observe(verb: string): Promise<Published> {
    const written = await newestWrite(site.guest);
    const { outcome, oracle } = await observeRun(site, () => site.start(verb, 'web', '--json'));
    expect([outcome.exitCode, outcome.stderr]).toEqual([0, expect.anything()]);
    const published = pointOf(outcome);
    newest.set(published.point, written);
    expect([...oracle.keys()]).toEqual(['devdisk0', 'devdisk1']);
    expect(await differingDisks(site, String(published.point), oracle)).toEqual([]);
    return published;
  }

  const status = async (): Promise<string> => {
    const answer = await site.monitor.run('query-status', {}, never);
    return typeof answer === 'object' && answer !== null && 'status' in answer ? String(answer.status) : '';
  };

  async function expectNothingLeft(): Promise<void> {
    expect(await readdir(site.scratchFolder)).toEqual([]);
    // At most the newest point's and the one that it was made by, of each disk.
    expect((await site.bitmaps()).length).toBeLessThanOrEqual(4);
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

  it('is application-consistent where its guest agent freezes it, for less than half a second, and writes on', async () => {
    await site.configure({ machine: { quiesce: 'require' }, source: { guestAgent: site.guest.agentSocket } });
    const published = pointOf(await expectOk(site.failkit('sync', 'web', '--json')));
    await site.configure();
    expect(published.consistency).toBe('application-consistent');
    expect(published.frozenMs).toBeLessThan(500);
    const before = await newestWrite(site.guest);
    await site.guest.run('sleep 0.5');
    expect(await newestWrite(site.guest)).toBeGreaterThan(before);
  });

  it('is thawed where the snapshot fails inside the frozen guest', async () => {
    const { agentSocket, qmpSocket } = site.guest;
    await using qmp = await QmpClient.open(qmpSocket, never);
    const control = { kind: 'qmp' as const, socket: qmpSocket, guestAgentSocket: agentSocket };
    const [disk] = await listDisks(qmp, never);
    if (disk === undefined) throw new Error('no disk');
    const marks = marksOf('ffffffff');
    const gone = { ...disk, node: 'no-such-node' };
    const tracking = trackDisk(gone, marks, marks.newReferencePoint());
    const taken = takePoint(
      qmp,
      'web',
      control,
      [{ index: 0, disk: gone, tracking, mode: 'pull' }],
      { marks, scratch: { folder: site.scratchFolder, prefix: marks.prefix, freeBytesMin: 0 } },
      { quiesce: 'require', whenChanging: 'refuse' },
      never,
    );
    await expect(taken).rejects.toThrow(QmpRefused);
    const before = await newestWrite(site.guest);
    await site.guest.run('sleep 0.5');
    expect(await newestWrite(site.guest)).toBeGreaterThan(before);
  });

  it('is thawed by the guard of an agent that was killed while it was frozen', async () => {
    await using tap = await tapQmp(join(site.folder, 'tap-frozen'), site.guest.qmpSocket);
    const source = { qmp: tap.socket, guestAgent: site.guest.agentSocket };
    await site.configure({ machine: { quiesce: 'require' }, source });
    const run = site.start('sync', 'web', '--json');
    tap.arm('transaction', () => run.kill('SIGKILL'));
    expect((await run.ended).exitCode).not.toBe(0);
    const before = await newestWrite(site.guest);
    await expect.poll(() => newestWrite(site.guest), { timeout: 30_000 }).toBeGreaterThan(before + 5);
    await expect.poll(() => readdir(site.scratchFolder), { timeout: 30_000 }).toEqual([]);
    await site.configure();
  });

  it('boots again from its last and from its first point, with the files of that time in it', async () => {
    const points = [...newest.keys()];
    for (const point of [points.at(-1) ?? 0, points[0] ?? 0]) {
      const to = join(site.folder, `booted-${point}`);
      const script = `${to}.sh`;
      await expectOk(site.failkit('restore', 'web', '--to', to, '--point', String(point), '--qemu', script));
      expect(await readFile(script, 'utf8')).toMatch(/-machine pc-[^ ]+,accel.*-cpu max.*-m 256M -smp 1/s);
      const disks = ['devdisk0', 'devdisk1'].map((label) => ({
        path: join(to, `${label}.raw`),
        format: 'raw' as const,
      }));
      await using restored = await bootGuest({ disks });
      await restored.ready();
      const slots = await checkWritten(restored, '/data/vdb/slots');
      expect(slots.torn).toBeLessThanOrEqual(1);
      // What the guest was told to be on disk is there.
      expect(slots.newest).toBeGreaterThanOrEqual(newest.get(point) ?? 0);
    }
  });

  it('goes on after the agent was killed at any step, and keeps nothing of what that one began', async () => {
    await using tap = await tapQmp(join(site.folder, 'tap'), site.guest.qmpSocket);
    await site.configure({ source: { qmp: tap.socket } });
    let kills = 0;
    for (let nth = 1, met = true; met; nth++) {
      met = false;
      const run = site.start('sync', 'web', '--json');
      // QEMU does what it was asked, and nobody hears the answer.
      tap.arm(nth, () => {
        met = true;
        run.kill('SIGKILL');
      });
      const { exitCode, stderr } = await run.ended;
      if (met) kills++;
      else expect([exitCode, stderr]).toEqual([0, expect.anything()]);
      // Killed while a pushed disk's guest stood still, it is the agent's guard that lets it go on.
      await expect.poll(status, { timeout: 20_000 }).toBe('running');
      if (nth % 10 > 0) continue;
      await expectOk(site.failkit('sync', 'web', '--json'));
      expect(reasonsOf(await observe('sync'))).toEqual(['', '']);
    }
    expect(kills).toBeGreaterThan(10);
    // Nobody said which way to take.
    expect(tap.commands.includes('nbd-server-start')).toBe(mode === 'pull');
    expect(reasonsOf(await observe('sync'))).toEqual(['', '']);
    await site.configure();
    expect(await status()).toBe('running');
    await expectNothingLeft();
  });

  it('is read in full, and says why, after its QEMU was killed', async () => {
    await site.guest.kill();
    await site.boot();
    const resync = await observe('sync');
    for (const reason of reasonsOf(resync)) expect(reason).toMatch(/^resync: .* is gone: QEMU was killed/);
    expect(reasonsOf(await observe('sync'))).toEqual(['', '']);
    await expectNothingLeft();
  });
});

function pointOf(outcome: { json<T>(): T }): Published {
  const [published] = outcome.json<{ machines: Published[] }>().machines;
  if (published === undefined) throw new Error('no point');
  return published;
}

function reasonsOf({ disks }: Published): readonly string[] {
  return disks.map(({ fullReadReason }) => fullReadReason);
}

async function expectOk(run: ReturnType<QmpSite['failkit']>) {
  const outcome = await run;
  expect([outcome.exitCode, outcome.stderr]).toEqual([0, expect.anything()]);
  return outcome;
}
