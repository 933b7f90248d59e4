import { expect, it } from 'vitest';
import { liveThirtyDays } from './thirty-days.ts';

it('thirty days of ten machines under object lock: every point restores, and what is stored is what is needed and half of it at most', async ({
  annotate,
}) => {
  const summary = await liveThirtyDays(2, true);
  expect(summary).toMatch(/needed/);
  process.stdout.write(`${summary}\n`);
  await annotate(summary);
}, 3_600_000);
