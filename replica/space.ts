import type { StorageTarget } from '../storage-targets/storage-target.ts';
import type { Chain } from './chain.ts';
import { isNeeded } from './chain-state.ts';
import { isMostlyDead } from './compaction.ts';
import { machinePrefix, segmentIdOf, segmentKey, segmentsPrefix } from './names.ts';

/** Where the bytes of a replica are: from its chain and one listing, without any key. */

export interface SpaceUsed {
  /** What the newest point needs, by its share of the units of each segment. */
  readonly liveBytes: number;
  /** Blocks that only older points need, in segments that are kept anyway or for them alone. */
  readonly historyBytes: number;
  /** Segments that no point needs: the next sweep may delete them. */
  readonly unneededBytes: number;
  /** Chain, control, keys, pins. */
  readonly overheadBytes: number;
  readonly objects: number;
  /** Of mostly dead segments, what the newest point does not use: it goes with the older points once compaction has sent the rest again. */
  readonly compactableBytes: number;
  /** What sweeping would free after a prune that keeps `kept`, beyond `unneededBytes`. */
  readonly freedByPruneBytes: number;
}

/** `kept`: the points that the next prune would leave, ascending. One LIST for each thousand objects. */
export async function measureSpace(
  target: StorageTarget,
  { state, machineId }: Chain,
  kept: readonly number[],
  signal: AbortSignal,
): Promise<SpaceUsed> {
  const retained = [...state.points.values()];
  const remaining = kept.map((seq) => ({ seq }));
  const space = {
    liveBytes: 0,
    historyBytes: 0,
    unneededBytes: 0,
    overheadBytes: 0,
    objects: 0,
    compactableBytes: 0,
    freedByPruneBytes: 0,
  };
  for await (const { name, bytes } of target.list(machinePrefix(machineId), {}, signal)) {
    space.objects++;
    const id = name.startsWith(segmentsPrefix(machineId)) ? segmentIdOf(name, machineId) : null;
    const life = id === null ? undefined : state.segments.get(segmentKey(id));
    if (id === null) space.overheadBytes += bytes;
    else if (life === undefined || !isNeeded(life, retained)) space.unneededBytes += bytes;
    else {
      const liveBytes = Math.round((bytes * (life.units - life.dead)) / life.units);
      space.liveBytes += liveBytes;
      space.historyBytes += bytes - liveBytes;
      if (isMostlyDead(life)) space.compactableBytes += bytes - liveBytes;
      if (!isNeeded(life, remaining)) space.freedByPruneBytes += bytes;
    }
  }
  return space;
}
