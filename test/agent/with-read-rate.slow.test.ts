import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { withReadRate } from '../../agent/with-read-rate.ts';
import { connectImages } from '../../hypervisors/image/image-connection.ts';
import { Bandwidth } from '../../storage-targets/bandwidth.ts';
import { type Sample, worstShares } from '../windows.ts';

const MiB = 2 ** 20;
const diskBytes = 64 * MiB;
/** As a run does it. */
const [readers, readBytes] = [4, 2 * MiB];
const [measuredMs, startMs] = [14_000, 1_000];

/** Reads one disk again and again, and notes ten times a second what the source has given by then. */
async function readAtRate(path: string, bytesPerSecond: number): Promise<readonly Sample[]> {
  const machine = { name: 'm', disks: [{ label: 'd', path, format: 'raw' as const, tracking: 'none' as const }] };
  await using images = connectImages([{ ...machine, attachments: [] }]);
  let bytes = 0;
  const counted = {
    ...images,
    snapshot: async (...args: Parameters<typeof images.snapshot>) => {
      const taken = await images.snapshot(...args);
      const disks = taken.disks.map((disk) => ({
        ...disk,
        capacityBytes: disk.capacityBytes,
        read: async (offset: number, into: Uint8Array, signal: AbortSignal) => {
          await disk.read(offset, into, signal);
          bytes += into.length;
        },
      }));
      return { ...taken, disks, [Symbol.asyncDispose]: () => taken[Symbol.asyncDispose]() };
    },
  };
  const stop = new AbortController();
  const connection = withReadRate(counted, new Bandwidth(bytesPerSecond));
  await using taken = await connection.snapshot({ name: 'm' }, { quiesce: 'off', whenChanging: 'refuse' }, stop.signal);
  const [disk] = taken.disks;
  if (disk === undefined) throw new Error('there is no disk');
  const reader = async (lane: number) => {
    const into = new Uint8Array(readBytes);
    for (let i = lane; ; i += readers) await disk.read((i * readBytes) % diskBytes, into, stop.signal);
  };
  const over = Promise.allSettled(Array.from({ length: readers }, (_, lane) => reader(lane)));
  const samples: Sample[] = [];
  for (const began = performance.now(); performance.now() - began < measuredMs; await sleep(100))
    samples.push({ ms: performance.now() - began, bytes });
  stop.abort();
  await over;
  return samples;
}

it('a read rate is kept within 5 % in every ten seconds', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'failkit-read-rate-'));
  try {
    const path = join(folder, 'disk.raw');
    await makeDisk(path);
    await Promise.all(
      [1, 4, 50].map(async (rate) => {
        const { least, most } = worstShares(await readAtRate(path, rate * MiB), rate * MiB, startMs);
        console.log(`${rate} MiB/s: ${least.toFixed(3)} to ${most.toFixed(3)} of it`);
        expect(least).toBeGreaterThan(0.95);
        expect(most).toBeLessThan(1.05);
      }),
    );
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

async function makeDisk(path: string): Promise<void> {
  await using file = await open(path, 'w');
  await file.truncate(diskBytes);
}
