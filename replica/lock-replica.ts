import { ObjectNotFound } from '../storage-targets/errors.ts';
import type { StorageTarget } from '../storage-targets/storage-target.ts';
import { type ChainState, isNeeded } from './chain-state.ts';
import type { Birth } from './control.ts';
import { eachInParallel } from './in-parallel.ts';
import { chainPrefix, controlPrefix, keyRecordsPrefix, repositoryName, segmentName, trustPrefix } from './names.ts';

/** Object lock of all that the recovery points of a machine need: docs/format.md §8.5. */

/** Two small requests each. */
const objectsAtOnceMax = 32;

export interface WhatToLock {
  readonly machineId: Uint8Array;
  /** As it is before the next publish. */
  readonly state: ChainState;
  /** Of that publish. */
  readonly births: readonly Birth[];
}

/** When it resolves, every object that a retained point or the next one needs is locked until then, or for longer. */
export async function lockReplica(
  target: StorageTarget,
  what: WhatToLock,
  until: Date,
  signal: AbortSignal,
): Promise<void> {
  await eachInParallel(
    (either) => neededNames(target, what, either),
    objectsAtOnceMax,
    signal,
    async ({ name, mayBeGone }, either) => {
      try {
        await target.extendRetention(name, until, either);
      } catch (error) {
        if (!mayBeGone || !(error instanceof ObjectNotFound)) throw error;
      }
    },
  );
}

interface NeededName {
  readonly name: string;
  /** It may be garbage that a sweeper removes just now. */
  readonly mayBeGone: boolean;
}

async function* neededNames(
  target: StorageTarget,
  { machineId, state, births }: WhatToLock,
  signal: AbortSignal,
): AsyncGenerator<NeededName> {
  const points = [...state.points.keys()].sort((a, b) => a - b).map((seq) => ({ seq }));
  for (const life of state.segments.values())
    if (isNeeded(life, points)) yield { name: segmentName(machineId, life), mayBeGone: false };
  for (const birth of births) yield { name: segmentName(machineId, birth), mayBeGone: false };
  yield { name: repositoryName, mayBeGone: false };
  for (const prefix of [chainPrefix(machineId), keyRecordsPrefix(machineId), trustPrefix])
    for await (const { name } of target.list(prefix, {}, signal)) yield { name, mayBeGone: false };
  for await (const { name } of target.list(controlPrefix(machineId), {}, signal)) yield { name, mayBeGone: true };
}
