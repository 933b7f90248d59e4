import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { minioNeeds, s3Options, startMinio } from '../peers/s3.ts';
import { firstSeed } from './campaign.ts';
import { type RealStore, simulateOn } from './simulate-on-store.ts';
import { loadVariant, smallNumbers } from './variants.ts';
import type { Counters } from './world.ts';

/** The same agents, pruners, sweepers, readers with pins, locks and copiers, at one time against real stores: as many histories as there is time for. */

const needs = await minioNeeds();
const worldsAtOnce = 12;
const historiesMax = 200;
const lively = ['fenced', 'swept', 'readings', 'copies', 'prunes'] as const;

interface Campaign {
  readonly histories: number;
  readonly totals: Counters;
}

async function campaign(run: typeof simulateOn, store: (seed: number) => RealStore, ms: number): Promise<Campaign> {
  const until = performance.now() + ms;
  const totals: Record<string, number> = {};
  let [next, histories] = [firstSeed(), 0];
  // Under load it takes a few more until everything has happened once.
  const isLively = () => lively.every((what) => (totals[what] ?? 0) > 0);
  const worker = async (): Promise<void> => {
    while (performance.now() < until || (!isLively() && histories < historiesMax)) {
      const seed = next++;
      const { violation, counters } = await run(store(seed), seed);
      expect(violation?.message ?? null).toBeNull();
      for (const [name, count] of Object.entries(counters)) totals[name] = (totals[name] ?? 0) + count;
      histories++;
    }
  };
  await Promise.all(Array.from({ length: worldsAtOnce }, worker));
  return { histories, totals: totals as unknown as Counters };
}

function expectLively({ histories, totals }: Campaign): void {
  expect(totals.publishes).toBeGreaterThan(2 * histories);
  for (const what of lively) expect(totals[what], what).toBeGreaterThan(0);
}

describe('agents, pruners, copiers and readers of one machine lose nothing', () => {
  it.skipIf(needs !== null)(needs ?? 'in a real S3 store, with and without object lock', async () => {
    await using variant = await loadVariant(smallNumbers);
    await using peer = await startMinio();
    const [plain, locking] = [await peer.createBucket(), await peer.createBucket({ objectLock: true })];
    const done = await campaign(
      variant.simulateOn,
      (seed) => {
        const objectLock = seed % 4 === 0;
        return { kind: 's3', options: s3Options(peer, objectLock ? locking : plain), objectLock };
      },
      30_000,
    );
    expectLively(done);
    expect(done.totals.locks).toBeGreaterThan(0);
  });

  it('in a directory, the product’s text unchanged', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'failkit-protocol-'));
    try {
      expectLively(await campaign(simulateOn, () => ({ kind: 'filesystem', directory }), 10_000));
    } finally {
      await rm(directory, { recursive: true });
    }
  });
});
