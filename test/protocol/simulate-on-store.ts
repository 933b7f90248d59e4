import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { openChain, verifyWholeChain } from '../../replica/chain.ts';
import { chainPrefix, segmentKey, segmentName, segmentsPrefix } from '../../replica/names.ts';
import { type OpenRepository, openRepository } from '../../replica/open-repository.ts';
import { pinsPrefix } from '../../replica/pins.ts';
import { Immutable } from '../../storage-targets/errors.ts';
import { openFilesystemTarget } from '../../storage-targets/filesystem.ts';
import { openS3Target } from '../../storage-targets/s3.ts';
import type { S3Options } from '../../storage-targets/s3-bucket.ts';
import type { StorageTarget } from '../../storage-targets/storage-target.ts';
import { runCopier } from './copier.ts';
import { sweepOne } from './pruner.ts';
import { asViolation, checkNothingIsLeft, type Outcome, spawnAll } from './simulate.ts';
import { Truth, Violation } from './truth.ts';
import { World } from './world.ts';

/** A history as `simulate` makes it, of actors that run at one time against a real store. It is judged at its end, by what the store holds. */

export type RealStore =
  | { readonly kind: 's3'; readonly options: S3Options; readonly objectLock: boolean }
  | { readonly kind: 'filesystem'; readonly directory: string };

const never = new AbortController().signal;

export async function simulateOn(real: RealStore, seed: number): Promise<Outcome> {
  await using store = await openPlace(real, `${seed}/store`);
  await using copy = await openPlace(real, `${seed}/copy`);
  const world = new World(seed, new Set(), { store, copy, objectLock: real.kind === 's3' && real.objectLock });
  await world.found();
  spawnAll(world);
  await world.scheduler.run();
  let entries = 0;
  if (world.violation === null) {
    entries = await judge(world, store, copy).catch((error: unknown) => {
      world.report(asViolation(error));
      return 0;
    });
  }
  const { violation, counters, scheduler } = world;
  return { violation, counters, entries, steps: scheduler.steps };
}

async function openPlace(real: RealStore, place: string): Promise<StorageTarget> {
  if (real.kind === 's3') return await openS3Target({ ...real.options, prefix: place });
  const directory = join(real.directory, place);
  await mkdir(directory, { recursive: true });
  return await openFilesystemTarget({ directory });
}

async function judge(world: World, store: StorageTarget, copy: StorageTarget): Promise<number> {
  const repo = await openRepository(store, world.pinnedRoot, never);
  const chain = await openChain(repo, world.machineId, never);
  if (chain === null) return 0;
  await verifyWholeChain(repo, chain, never);
  const truth = await readTruth(world, store);
  for (const attempt of world.fencedAttempts)
    if (truth.attempts.has(attempt)) throw new Violation('fenced, yet published', attempt);
  requireWhole(truth, 'segment lost');

  await runCopier(world, repo, copy, { sweeps: false });
  requireWhole(await readTruth(world, copy), 'copy lost a segment');
  await sweepAll(world, repo);
  const swept = await readTruth(world, store);
  requireWhole(swept, 'segment lost');
  if (world.retention === null && repo.trust.retentionFloorDays === 0) checkNothingIsLeft(world.machineId, swept);
  else await requireLocked(world, store, swept);
  return truth.entries.length;
}

async function sweepAll(world: World, repo: OpenRepository): Promise<void> {
  const pins: string[] = [];
  for await (const { name } of repo.target.list(pinsPrefix(world.machineId), {}, never)) pins.push(name);
  await repo.target.delete(pins, never);
  await sweepOne(world, repo);
}

/** From what there is. Points that were pruned have lost segments, and that is right. */
async function readTruth({ repositoryId, machineId }: World, target: StorageTarget): Promise<Truth> {
  const facts = { now: () => 0, lockedUntil: () => Number.POSITIVE_INFINITY, floorMs: 0 };
  const torn: Violation[] = [];
  const truth = new Truth(repositoryId, machineId, facts, (found) => {
    if (found.kind !== 'segment lost') torn.push(found);
  });
  for (const prefix of [segmentsPrefix(machineId), chainPrefix(machineId)]) {
    const names: string[] = [];
    for await (const { name } of target.list(prefix, {}, never)) names.push(name);
    // The chain's names count downwards.
    for (const name of names.reverse()) truth.put(name, await target.get(name, null, never));
  }
  if (torn[0] !== undefined) throw torn[0];
  return truth;
}

function requireWhole(truth: Truth, kind: 'segment lost' | 'copy lost a segment'): void {
  for (const [seq, slots] of truth.points)
    for (const unit of slots.values())
      if (!truth.has(unit)) throw new Violation(kind, `${segmentKey(unit)} of point ${seq}`);
}

/** Of each point that says that it is immutable, one segment is tried. */
async function requireLocked({ machineId, retention }: World, store: StorageTarget, truth: Truth): Promise<void> {
  if (retention === null) return;
  for (const { seq, body } of truth.entries) {
    const [unit] = truth.points.get(seq)?.values() ?? [];
    if (unit === undefined || body.type !== 'publish' || body.immutableUntilMs === 0) continue;
    const name = segmentName(machineId, unit);
    const error: unknown = await store.delete([name], never).then(
      () => null,
      (refusal: unknown) => refusal,
    );
    if (!(error instanceof Immutable)) throw new Violation('not locked', `${name} of point ${seq} could be deleted`);
  }
}
