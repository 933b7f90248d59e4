import { openChain, readPoint } from '../../replica/chain.ts';
import { segmentKey, segmentName } from '../../replica/names.ts';
import type { OpenRepository } from '../../replica/open-repository.ts';
import { putPin } from '../../replica/pins.ts';
import { ObjectNotFound } from '../../storage-targets/errors.ts';
import { parseManifest, sha256Hex, type Unit, Violation } from './truth.ts';
import type { World } from './world.ts';

/** A restore: pins a point, looks again whether it is still there (rule R8), and then reads every segment of it. */

const never = new AbortController().signal;
const roundsMax = 8;
/** Longer than any history. */
const pinHours = 900_000;

export async function runReader(world: World, repo: OpenRepository): Promise<void> {
  const seen = await openChain(repo, world.machineId, never);
  if (seen === null || seen.state.points.size === 0) return;
  const seq = world.random.pick([...seen.state.points.keys()]);
  const pin = await putPin(repo.target, world.machineId, seq, pinHours, never);
  const chain = world.does('reads without looking again') ? seen : await openChain(repo, world.machineId, never);
  if (chain?.state.points.has(seq)) {
    const { body } = await readPoint(repo, chain, seq, never);
    const units = body.type === 'publish' ? [...parseManifest(body.sealedManifest).slots.values()] : [];
    // A restore takes long beside what a sweeper does.
    for (let rounds = 1 + world.random.below(roundsMax); rounds > 0; rounds--)
      for (const unit of units) await readUnit(world, repo, seq, unit);
    world.counters.readings++;
    if (!world.truth.points.has(seq)) world.counters.readingsOfPruned++;
  }
  await repo.target.delete([pin], never);
}

async function readUnit(world: World, repo: OpenRepository, seq: number, unit: Unit): Promise<void> {
  try {
    const bytes = await repo.target.get(segmentName(world.machineId, unit), null, never);
    if (sha256Hex(bytes) === unit.sha256) return;
    world.report(new Violation('segment altered', `a reader of point ${seq} got other bytes of ${segmentKey(unit)}`));
  } catch (error) {
    if (!(error instanceof ObjectNotFound)) throw error;
    world.report(new Violation('reader lost a segment', `${segmentKey(unit)} of point ${seq}, which it had pinned`));
  }
}
