import { expect, it } from 'vitest';
import { liveThirtyDays } from './thirty-days.ts';

it('thirty days of ten machines: every point restores, and what is stored is what is needed and half of it at most', async ({
  annotate,
  skip,
}) => {
  if (process.env.FAILKIT_LIFE !== '1') skip('needs FAILKIT_LIFE=1: it takes minutes of a quiet machine');
  const summary = await liveThirtyDays(1, false);
  expect(summary).toMatch(/needed/);
  await annotate(summary);
}, 3_600_000);
