import type { ReplicaRig } from '../replica-rig.ts';
import type { FragmentedMap, FragmentedPage } from './fragmented-map.ts';
import { publishFragmented } from './fragmented-replica.ts';
import { ScatteredDisk, type ScatteredDiskFields } from './scattered-disk.ts';
import type { WireBytes, WireCount } from './wire-count.ts';

/** Syncs of a disk with a fragmented map, one after another, and what each of them uploaded. `rig` writes to the target of `wire`. */

const diskId = new Uint8Array(16).fill(7);

export async function* wireSyncs(
  rig: ReplicaRig,
  wire: WireCount,
  disk: ScatteredDiskFields,
  pages: (map: FragmentedMap) => Iterable<FragmentedPage>,
): AsyncGenerator<WireBytes> {
  await publishFragmented(rig, { ...disk, diskId }, pages);
  using reader = await rig.open();
  const { keys } = reader.replica;
  await wire.take(keys, rig.signal);
  const source = new ScatteredDisk(disk);
  for (;;) {
    // Of a scattered disk only what changed is there to be read.
    await rig.protect(source, { segmentBytes: 8 * 2 ** 20, spotCheck: { everyMs: 0, bytesPerRunMax: 0 } });
    yield await wire.take(keys, rig.signal);
  }
}

export function sumOf(syncs: readonly WireBytes[]): WireBytes {
  const sum = { data: 0, map: 0, segmentFraming: 0, chain: 0, control: 0, other: 0, total: 0, pages: 0, blocks: 0 };
  for (const sync of syncs)
    for (const kind of [
      'data',
      'map',
      'segmentFraming',
      'chain',
      'control',
      'other',
      'total',
      'pages',
      'blocks',
    ] as const)
      sum[kind] += sync[kind];
  return sum;
}
