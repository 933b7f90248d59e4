import { expect, it } from 'vitest';
import { CliWorld } from './cli-world.ts';
import { checkNextRun, killSweep } from './kill-sweep.ts';

/** Of the whole sweep in kill-sweep.slow.test.ts, these are the calls where a kill once left what no later run could use. */
it('kill -9 while the state folder is made leaves nothing in the way of the next run', {
  timeout: 120_000,
}, async () => {
  using world = await CliWorld.create();
  const check = async (copy: CliWorld): Promise<void> => {
    await checkNextRun(copy, new Map(), null);
  };
  const only = { match: 'seal.key' };
  const kills = await killSweep({ world, args: () => ['seed', 'm'], moment: 'before', only, stride: 1, check });
  expect(kills).toBeGreaterThan(2);
});
