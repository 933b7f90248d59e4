import { expect, it } from 'vitest';
import { campaignRuns, firstSeed, runCampaign } from './campaign.ts';
import { loadVariant, smallNumbers } from './variants.ts';

/** Every mutant of the protocol is caught within 1,500 histories. These are other ones each time, so that many runs see many. */
const times = 25;

it(`${times * campaignRuns()} histories that were never seen lose nothing either`, { timeout: 3_600_000 }, async () => {
  await using variant = await loadVariant(smallNumbers);
  const { violations } = await runCampaign(variant.simulate, firstSeed(), campaignRuns() * times);
  expect(violations).toEqual([]);
});
