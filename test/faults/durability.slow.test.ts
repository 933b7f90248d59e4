import { describe, expect, it } from 'vitest';
import { CliWorld } from './cli-world.ts';
import { examine, type Moment, recordHistory, whyNoStrace } from './power-loss.ts';

const needs = whyNoStrace();
const k = Number(process.env.STRIDE ?? 1);

describe.skipIf(needs !== null)(needs ?? 'power loss', { timeout: 1_800_000 }, () => {
  it('loses nothing that was published', async () => {
    using world = new CliWorld();
    const history = await recordHistory(world);
    expect(world.objects().length).toBeGreaterThan(0);
    const count = await examine(history, (moment) => (moment.runs === 0 ? 40 * k : k), checkRemains);
    process.stdout.write(`power loss: ${JSON.stringify(count)}\n`);
  });
});

async function checkRemains(world: CliWorld, { runs, points }: Moment): Promise<void> {
  if (runs === 0) {
    const { exitCode, stdout } = await world.run(['init', '--kit', world.path('kit2')]);
    if (exitCode !== 0 && !stdout.includes('REPOSITORY_EXISTS')) throw new Error(stdout);
    return;
  }
  const { point } = await world.publishNext();
  await world.requirePoints(new Map([...points, [point, world.imageSha256]]));
}
