import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { expect, it } from 'vitest';
import { sha256 } from '../../crypto/suite.ts';
import type { Chain } from '../../replica/chain.ts';
import type { Birth, Death } from '../../replica/control.ts';
import { findGarbage } from '../../replica/garbage.ts';
import { segmentName } from '../../replica/names.ts';
import { prunePoints } from '../../replica/prune.ts';
import { countGarbage } from '../../replica/sweep.ts';
import type { Tenure } from '../../replica/tenure.ts';
import { openMemoryTarget } from '../fakes/memory-target.ts';
import { machineId, never, publish, SmallRepository } from '../protocol/small-repository.ts';

/** A disk of 1 TiB with a thousand points, and all but the newest pruned at once: the objects are a byte each, the chain is real. */

const points = 1_000;
const seedSegments = 131_072;
const segmentsEach = 64;
/** As a segment of 8 MiB has. */
const units = 128;
const secondsMax = 60;
const memoryBytesMax = 512 * 2 ** 20;

setFlagsFromString('--expose_gc');
const collectGarbage: () => void = runInNewContext('gc');

function heldBytes(): number {
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

it(`pruning ${points} points of 1 TiB, and finding what that frees, takes seconds and little memory`, async () => {
  const repository = new SmallRepository();
  const tenure = await repository.begin();
  const digest = sha256(new Uint8Array(1));
  let live = birthsOf(seedSegments, tenure);
  await publish(tenure, live, []);
  for (let i = 1; i < points; i++) {
    // The oldest segments die, as many as come.
    const deaths: Death[] = live.slice(0, segmentsEach).map((birth) => ({ ...birth, units }));
    const births = birthsOf(segmentsEach, tenure);
    live = [...live.slice(segmentsEach), ...births];
    await publish(tenure, births, deaths);
  }

  collectGarbage();
  const before = heldBytes();
  const start = performance.now();
  let [calls, peak] = [0, 0];
  const target = openMemoryTarget(repository.store, async () => {
    if (calls++ % 50 === 0) peak = Math.max(peak, heldBytes() - before);
    return { kind: 'done' };
  });
  const choose = async ({ state }: Chain) => [...state.points.keys()].slice(0, -1);
  const pruner = { agent: repository.agent, now: () => 1, choose };
  await prunePoints(await repository.open(target), machineId, pruner, never);
  const pruneSeconds = (performance.now() - start) / 1000;
  const { objects } = await countGarbage(findGarbage(await repository.open(target), machineId, never));
  const seconds = (performance.now() - start) / 1000;
  console.log(
    `prune of ${points - 1} points: ${pruneSeconds.toFixed(1)} s; ${objects} objects found to delete after ${seconds.toFixed(1)} s, ` +
      `${(peak / 2 ** 20).toFixed(0)} MiB more than before at most`,
  );
  expect(objects).toBeGreaterThanOrEqual((points - 1) * segmentsEach);
  expect(seconds).toBeLessThan(secondsMax);
  expect(peak).toBeGreaterThan(0);
  expect(peak).toBeLessThan(memoryBytesMax);

  function birthsOf(count: number, owner: Tenure): Birth[] {
    return Array.from({ length: count }, () => {
      const id = owner.nextSegment();
      repository.store.put(segmentName(machineId, id), new Uint8Array(1), digest, null);
      return { ...id, size: 1, units, sha256: digest };
    });
  }
}, 600_000);
