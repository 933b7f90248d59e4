import { randomBytes, randomInt } from 'node:crypto';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { Random } from '../../random.ts';
import { block, RepairStage } from '../../rig/repair-stage.ts';
import { RigWorkers } from '../../rig/rig-workers.ts';

const roundsPerStage = 10;
const stages = Number(process.env.FAILKIT_DAMAGE_STAGES ?? 3);

let workers: RigWorkers;
beforeAll(() => {
  workers = new RigWorkers();
});
afterAll(() => workers[Symbol.asyncDispose]());

it(`any damage to segments, ${stages * roundsPerStage} times, is followed by a whole point, whether it was verified before or is met`, async () => {
  for (let i = 0; i < stages; i++) {
    const seed = randomInt(2 ** 32);
    await using stage = await RepairStage.create(workers);
    expect(
      await damageAndRepair(stage, new Random(seed)).catch((error: unknown) => {
        throw new Error(`seed ${seed}`, { cause: error });
      }),
    ).toBe(roundsPerStage);
  }
});

async function damageAndRepair(stage: RepairStage, random: Random): Promise<number> {
  for (let round = 0; round < roundsPerStage; round++) {
    await stage.sync();
    for (const [label, disk] of stage.machine.disks) {
      if (label === 'system') disk.write(random.below(290) * block + 7, randomBytes(3 * block));
      else disk.discard(random.below(80) * block, random.below(5) * block);
    }
    await stage.sync();
    const damaged = damageSome(stage, 1 + (round % 4), random);
    if (random.chance(0.5)) stage.withState((state) => state.clearPages());
    await stage.verify(random.chance(0.5) ? 'full' : 'ciphertext');
    const { point } = await stage.sync();
    await stage.expectWhole(point).catch((error: unknown) => {
      throw new Error(`round ${round}: ${damaged.join('; ')}`, { cause: error });
    });
  }
  return roundsPerStage;
}

/** Flips a bit of so many segments, or removes them. Says what it did. */
function damageSome({ bucket }: RepairStage, count: number, random: Random): readonly string[] {
  const segments = bucket.names('/segments/');
  const done: string[] = [];
  for (let i = 0; i < count; i++) {
    const name = random.pick(segments);
    if (!bucket.names(name).includes(name)) continue;
    const at = random.below(bucket.bytes(name).length - 40);
    const remove = random.below(3) === 0;
    if (remove) bucket.remove(name);
    else bucket.flip(name, at);
    done.push(remove ? `${name} removed` : `${name} flipped at ${at}`);
  }
  return done;
}
