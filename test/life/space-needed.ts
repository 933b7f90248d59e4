import { BlockMap } from '../../replica/block-map.ts';
import { toHex } from '../../replica/encoding.ts';
import type { PageRef, Run } from '../../replica/page.ts';
import type { RigReader } from '../rig/rig-reader.ts';

/**
 * Bytes that the retained points need, if every block that none of them has could be cut out of its segment: of each record, its sealed
 * bytes × blocks that some point has ÷ blocks in it. Pages and the chain are not needed by this measure.
 */
export async function neededBytes({ replica, segments }: RigReader, signal: AbortSignal): Promise<number> {
  const records = new Map<string, { readonly bytes: number; readonly blocks: number; readonly live: Set<number> }>();
  const seen = new Set<string>();
  const guide = {
    enter: ({ digest }: PageRef): boolean => !seen.has(toHex(digest)) && seen.add(toHex(digest)).size > 0,
    unreadable: (_ref: PageRef, _level: number, error: unknown): never => {
      throw error;
    },
  };
  const note = ({ at, inside, count, recordBlocks }: Run): void => {
    const key = `${at.tenure}.${at.number}.${at.record}`;
    const record = records.get(key) ?? { bytes: at.length, blocks: recordBlocks, live: new Set() };
    records.set(key, record);
    for (let i = 0; i < count; i++) record.live.add(inside + i);
  };
  for (const point of replica.points) {
    const { manifest } = await replica.openPoint(point, signal);
    for (const disk of manifest.disks)
      for await (const { page } of new BlockMap(disk, disk.root, segments).pages(signal, guide))
        if ('runs' in page) page.runs.forEach(note);
  }
  return [...records.values()].reduce((sum, { bytes, blocks, live }) => sum + (bytes * live.size) / blocks, 0);
}
