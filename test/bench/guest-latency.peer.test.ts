/** What a guest feels of a first copy over a slow uplink: nothing of it may wait for that. */
import { describe, expect, it } from 'vitest';
import { openQmpSite } from '../end-to-end/qmp-site.ts';
import { guestNeeds } from '../peers/guest.ts';
import { guestClockMs, writeLatency } from '../peers/guest-writer.ts';

const needs = await guestNeeds();
const suffix = needs === null ? '' : ` (${needs})`;
const uplinkMbit = 50;
const baselineMs = 10_000;
const attemptsMax = 3;

describe.skipIf(needs !== null).for([
  { way: 'read from QEMU', iothread: false },
  { way: 'pushed by QEMU', iothread: true },
])(`a guest whose disks are $way${suffix}`, ({ iothread }) => {
  it(`writes at most twice as slowly, at the 99th percentile, while it is seeded over ${uplinkMbit} Mbit/s`, async () => {
    await using site = await openQmpSite({ iothread, dataMiB: 128 });
    await site.boot();
    await site.configure({ limits: { uploadMbitPerSecond: uplinkMbit }, compression: { level: 1 } });
    const { code } = await site.guest.run('dd if=/dev/urandom of=/data/vdb/noise bs=1M count=72 && sync', 300_000);
    expect(code).toBe(0);
    expect((await site.failkit('init', '--kit', 'kit')).exitCode).toBe(0);
    const ratios: number[] = [];
    // Others use this machine, too: one that met the goal shows that nothing has to wait for the uplink.
    while (ratios.length < attemptsMax && !ratios.some((ratio) => ratio <= 2)) {
      const begun = await guestClockMs(site.guest);
      await site.guest.run(`sleep ${baselineMs / 1000}`);
      const before = await guestClockMs(site.guest);
      const seed = await site.failkit('seed', 'web', '--new-replica', '--json');
      expect([seed.exitCode, seed.stderr]).toEqual([0, expect.anything()]);
      const after = await guestClockMs(site.guest);
      const [quiet, seeded] = [
        await writeLatency(site.guest, begun, before),
        await writeLatency(site.guest, before, after),
      ];
      // Long enough that it was the uplink which held it up.
      expect(after - before).toBeGreaterThan(10_000);
      ratios.push(seeded.p99Us / quiet.p99Us);
      process.stdout.write(
        `p99 of writes, µs: ${quiet.p99Us} alone, ${seeded.p99Us} while seeded for ${Math.round((after - before) / 1000)} s\n`,
      );
    }
    expect(Math.min(...ratios)).toBeLessThanOrEqual(2);
  });
});
