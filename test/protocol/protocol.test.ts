import { describe, expect, it } from 'vitest';
import { campaignRuns, runCampaign } from './campaign.ts';
import { simulate } from './simulate.ts';
import { loadVariant, smallNumbers } from './variants.ts';

const timeoutMs = 300_000;

describe('agents, clones, pruners, copiers and readers of one machine, interleaved at random, crashing, paused, unanswered', () => {
  it('lose no point, publish each entry once, count the dead rightly and leave no garbage', {
    timeout: timeoutMs,
  }, async () => {
    await using variant = await loadVariant(smallNumbers);
    const runs = campaignRuns();
    const { violations, totals } = await runCampaign(variant.simulate, 1, runs);
    expect(violations).toEqual([]);
    // A campaign in which these things do not happen proves nothing about them.
    expect(totals.publishes).toBeGreaterThan(runs * 5);
    expect(totals.fenced).toBeGreaterThan(runs);
    expect(totals.prunes).toBeGreaterThan(runs / 2);
    expect(totals.swept).toBeGreaterThan(runs * 2);
    expect(totals.readings).toBeGreaterThan(runs);
    expect(totals.adoptions).toBeGreaterThan(runs / 10);
    expect(totals.readingsOfPruned).toBeGreaterThan(runs / 10);
    expect(totals.copies).toBeGreaterThan(runs / 2);
    expect(totals.locks).toBeGreaterThan(runs / 10);
    expect(totals.locked).toBeGreaterThan(0);
  });

  it('do so with the product’s own numbers, too, text unchanged', { timeout: timeoutMs }, async () => {
    const { violations } = await runCampaign(simulate, 1, Math.ceil(campaignRuns() / 25));
    expect(violations).toEqual([]);
  });

  it('do the same again under the same seed', { timeout: timeoutMs }, async () => {
    for (const seed of [3, 4, 5]) {
      const [first, second] = [await simulate(seed), await simulate(seed)];
      expect(second).toEqual(first);
      expect(first.steps).toBeGreaterThan(20);
    }
  });
});
