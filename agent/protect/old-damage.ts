import { BlockMap, type PageSource } from '../../replica/block-map.ts';
import { damageOf } from '../../replica/damage.ts';
import { toHex } from '../../replica/encoding.ts';
import type { DiskState, Manifest } from '../../replica/manifest.ts';
import { type SegmentId, segmentKey } from '../../replica/names.ts';

/** What is damaged of the newest point, so that the next one can do without it. */
export interface OldDamage {
  /** What the next point must not use: known from a verify, or found by reading the old maps. */
  readonly segments: ReadonlyMap<string, SegmentId>;
  /** How many of them a disk's map uses, by disk id. */
  readonly touched: ReadonlyMap<string, number>;
  /** Disks whose map can't be read as a whole, by disk id, with the page that failed. */
  readonly unreadable: ReadonlyMap<string, string>;
  /**
   * Units that the other disks and the attachments use, by segment. What the chain counts beyond them belongs to the maps that can't be
   * read: so their deaths are counted, too, and never too many.
   */
  readonly readableUnits: ReadonlyMap<string, number>;
}

export const noDamage: OldDamage = {
  segments: new Map(),
  touched: new Map(),
  unreadable: new Map(),
  readableUnits: new Map(),
};

/** Walks the newest point's maps, as far as they can be read. Memory grows with its segments only where a map can't. */
export async function surveyDamage(
  newest: Manifest,
  known: readonly SegmentId[],
  pages: PageSource,
  signal: AbortSignal,
): Promise<OldDamage> {
  const segments = new Map(known.map((id) => [segmentKey(id), id]));
  const unreadable = new Map<string, string>();
  for (const disk of newest.disks) {
    for await (const { error, at } of unreadablePages(disk, pages, signal)) {
      segments.set(segmentKey(at), at);
      unreadable.set(toHex(disk.diskId), error);
    }
  }
  const readable = newest.disks.filter(({ diskId }) => !unreadable.has(toHex(diskId)));
  const touched = new Map<string, number>();
  for (const disk of readable) {
    const hit = new Set<string>();
    for await (const { id } of unitsOf(disk, pages, signal)) if (segments.has(segmentKey(id))) hit.add(segmentKey(id));
    if (hit.size > 0) touched.set(toHex(disk.diskId), hit.size);
  }
  const all = { segments, touched, unreadable };
  return {
    ...all,
    readableUnits: unreadable.size === 0 ? new Map() : await countUnits(newest, readable, pages, signal),
  };
}

async function* unreadablePages(
  disk: DiskState,
  pages: PageSource,
  signal: AbortSignal,
): AsyncGenerator<{ readonly at: SegmentId; readonly error: string }> {
  const found: { at: SegmentId; error: string }[] = [];
  const guide = {
    enter: () => true,
    unreadable: ({ tenure, number }: SegmentId, _level: number, error: unknown) => {
      found.push({ at: { tenure, number }, error: damageOf('', error).what });
    },
  };
  for await (const _page of new BlockMap(disk, disk.root, pages).pages(signal, guide)) yield* found.splice(0);
  yield* found;
}

/** Where everything of a disk lies: its pages, and its blocks run by run. */
async function* unitsOf(
  disk: DiskState,
  pages: PageSource,
  signal: AbortSignal,
): AsyncGenerator<{ readonly id: SegmentId; readonly units: number }> {
  for await (const { ref, page } of new BlockMap(disk, disk.root, pages).pages(signal)) {
    yield { id: ref, units: 1 };
    if ('runs' in page) for (const run of page.runs) yield { id: run.at, units: run.count };
  }
}

async function countUnits(
  newest: Manifest,
  readable: readonly DiskState[],
  pages: PageSource,
  signal: AbortSignal,
): Promise<ReadonlyMap<string, number>> {
  const counted = new Map<string, number>();
  const count = (id: SegmentId, units: number): void => {
    counted.set(segmentKey(id), (counted.get(segmentKey(id)) ?? 0) + units);
  };
  for (const { chunks } of newest.attachments) for (const { at } of chunks) count(at, 1);
  for (const disk of readable) for await (const { id, units } of unitsOf(disk, pages, signal)) count(id, units);
  return counted;
}
