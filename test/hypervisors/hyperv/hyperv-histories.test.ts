import { expect, test } from 'vitest';
import { histories } from './histories.ts';

test('every point of a random history is what the disks held at its checkpoint, and nothing of ours is left', async () => {
  const tally = await histories(4);
  expect(tally.published).toBeGreaterThan(4);
});
