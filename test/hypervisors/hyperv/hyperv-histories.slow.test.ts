import { expect, test } from 'vitest';
import { histories } from './histories.ts';

test('every point of 200 random histories is what the disks held at its checkpoint, and nothing of ours is left', async () => {
  const tally = await histories(200);
  // Most runs succeed, most of those ask what changed, and all ways to fail are met.
  expect(tally.published).toBeGreaterThan(350);
  expect(tally.synced).toBeGreaterThan(250);
  expect(tally.resynced).toBeGreaterThan(150);
  expect(tally.died).toBeGreaterThan(70);
  expect([...tally.codes.keys()].sort()).toEqual(
    expect.arrayContaining(['HYPERV_BUSY', 'HYPERV_SNAPSHOT_STUCK', 'HYPERV_ELSEWHERE', 'HYPERV_UNREACHABLE']),
  );
});
