import { expect, it } from 'vitest';
import { campaignRuns, runCampaign } from './campaign.ts';
import { loadVariant, smallNumbers } from './variants.ts';

/** Other seeds than the quick lane's. */
const firstSeed = 1_000_000;

it('forty times as many histories lose nothing either', { timeout: 3_600_000 }, async () => {
  await using variant = await loadVariant(smallNumbers);
  const { violations } = await runCampaign(variant.simulate, firstSeed, campaignRuns() * 40);
  expect(violations).toEqual([]);
});
