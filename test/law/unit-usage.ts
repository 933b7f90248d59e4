import { expect } from 'vitest';
import { BlockMap } from '../../replica/block-map.ts';
import type { ChainState } from '../../replica/chain-state.ts';
import type { Manifest } from '../../replica/manifest.ts';
import { segmentKey } from '../../replica/names.ts';
import { recordType } from '../../replica/segment.ts';
import type { MemoryStore } from '../fakes/memory-target.ts';
import type { RigReader } from '../rig/rig-reader.ts';

/** Space accounting, counted by brute force: what a point reaches, against what the chain says lives and is dead. */

const signal = new AbortController().signal;

/** Units that a point uses, by segment. */
export type UnitUsage = ReadonlyMap<string, number>;

export async function usageOf(manifest: Manifest, reader: RigReader): Promise<UnitUsage> {
  const usage = new Map<string, number>();
  const use = (key: string, units: number): Map<string, number> => usage.set(key, (usage.get(key) ?? 0) + units);
  for (const disk of manifest.disks) {
    for await (const { ref, page } of new BlockMap(disk, disk.root, reader.segments).pages(signal)) {
      use(segmentKey(ref), 1);
      if ('runs' in page) for (const run of page.runs) use(segmentKey(run.at), run.count);
    }
  }
  for (const { chunks } of manifest.attachments) for (const { at } of chunks) use(segmentKey(at), 1);
  return usage;
}

/** `usages` are those of all points, in their order; none was ever pruned. */
export function expectCountsOf(state: ChainState, usages: ReadonlyMap<number, UnitUsage>): void {
  const seqs = [...usages.keys()];
  const newest = seqs.at(-1) ?? 0;
  const reached = new Set([...usages.values()].flatMap((usage) => [...usage.keys()]));
  expect([...state.segments.keys()].sort()).toEqual([...reached].sort());
  for (const [key, life] of state.segments) {
    const users = seqs.filter((seq) => usages.get(seq)?.has(key));
    const death = seqs.find((seq) => seq > (users.at(-1) ?? 0)) ?? 0;
    const live = usages.get(newest)?.get(key) ?? 0;
    const counted = { birth: life.birth, death: life.death, live: life.units - life.dead };
    expect(counted, `segment ${key} of ${life.units} units`).toEqual({ birth: users[0], death, live });
  }
}

/** What the chain says of the segments born by this point is what they are. */
export async function expectBirths(
  state: ChainState,
  point: number,
  store: MemoryStore,
  reader: RigReader,
): Promise<void> {
  for (const life of [...state.segments.values()].filter(({ birth }) => birth === point)) {
    const object = store.read(reader.segments.nameOf(life));
    expect(object.bytes.length).toBe(life.size);
    expect(Buffer.compare(object.sha256, life.sha256)).toBe(0);
    const footer = (await reader.segments.opener(life, signal)).openFooter(object.bytes);
    const units = footer.map(({ type, blockCount }) => (type === recordType.data ? blockCount : 1));
    expect(units.reduce((sum, count) => sum + count, 0)).toBe(life.units);
  }
}
