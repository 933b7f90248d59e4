import { existsSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { MemoryStore, openMemoryTarget } from '../fakes/memory-target.ts';
import { coldSync, prepareColdSync } from '../rig/fragmented/cold-sync.ts';
import { pathsOf } from '../rig/fragmented/fragmented-replica.ts';
import { changedBlocks, type ScatteredDiskFields } from '../rig/fragmented/scattered-disk.ts';
import { type WireBytes, WireCount } from '../rig/fragmented/wire-count.ts';
import { sumOf, wireSyncs } from '../rig/fragmented/wire-syncs.ts';
import { ReplicaRig } from '../rig/replica-rig.ts';

/** What `npm run bench:wire` measures at length: the local state holds those pages only that the syncs ask for. */
const blockSize = 65_536;

describe('a disk of 1 TiB whose map is full and fragmented', () => {
  const disk: ScatteredDiskFields = { label: 'system', blockSize, blockCount: 2 ** 24, changes: 200, seed: 1 };
  /** Two entries each: one summary of the chain comes in 32 syncs. */
  const syncs = 32;

  it('is synced for 1.2 × the compressed blocks, of which 200 anywhere changed', async () => {
    const wire = new WireCount(openMemoryTarget(new MemoryStore()));
    await using rig = await ReplicaRig.create(wire.target, { inMemory: true });
    const blocks = Array.from({ length: syncs }, (_, i) => changedBlocks(disk, i + 1)).flat();
    const all: WireBytes[] = [];
    for await (const sync of wireSyncs(rig, wire, disk, (map) => pathsOf(map, blocks))) {
      all.push(sync);
      if (all.length === syncs) break;
    }
    const { data, blocks: sent, control, total } = sumOf(all);
    expect(sent).toBe(syncs * disk.changes);
    const ratio = (sent * blockSize) / data;
    expect([ratio > 2, ratio < 3]).toEqual([true, true]);
    // The summary is among what was counted.
    expect(control).toBeGreaterThan(2 ** 20);
    // 1.25 is promised for whatever compresses 3:1; this content does 2.35:1.
    expect(total / data).toBeLessThanOrEqual(1.2);
    expect((total - data) / (data * (ratio / 3))).toBeLessThanOrEqual(0.25);
  });
});

describe.skipIf(!existsSync('/proc/self/status'))('a map of 2^26 blocks (needs /proc)', () => {
  it('takes 256 MiB at most for a sync of 1,000 blocks anywhere, where that is the limit, with nothing in memory before', async () => {
    const disk: ScatteredDiskFields = { label: 'system', blockSize, blockCount: 2 ** 26, changes: 1000, seed: 2 };
    await using rig = await ReplicaRig.create();
    await prepareColdSync(rig, disk, (map) => pathsOf(map, changedBlocks(disk, 1)));
    const { changedBytes, peakBytes } = await coldSync(rig, 1);
    expect(changedBytes).toBe(1000 * blockSize);
    expect(peakBytes).toBeGreaterThan(50 * 2 ** 20);
    expect(peakBytes).toBeLessThanOrEqual(256 * 2 ** 20);
  });
});
