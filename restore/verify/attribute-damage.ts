import { BlockMap, type WalkGuide } from '../../replica/block-map.ts';
import type { DiskState } from '../../replica/manifest.ts';
import { segmentKey } from '../../replica/names.ts';
import type { RecordAddress } from '../../replica/segment.ts';
import type { Mark } from './damage-register.ts';
import { objectOf, openManifestOf, type PointsCheck } from './inspect-points.ts';
import { RecordSet } from './record-set.ts';

/**
 * Says of each damaged record exactly which points use it: a second walk over the maps, pages only. Pages that are whole down to
 * their blocks are passed over when another point shares them; of the others it is kept what is wrong below them.
 */
export async function attributeDamage(check: PointsCheck, signal: AbortSignal): Promise<void> {
  const vague = check.register.marks.filter(({ certain }) => !certain);
  for (const mark of vague) mark.points.clear();
  const attribution = { check, seen: new RecordSet(), below: new Map<string, ReadonlySet<Mark>>() };
  for (const point of check.points) {
    const manifest = await openManifestOf(check, point, signal);
    if (manifest === null) continue;
    const hurt = new Set<Mark>();
    for (const disk of manifest.disks) await attributeDisk(disk, hurt, attribution, signal);
    for (const { chunks } of manifest.attachments)
      for (const { at } of chunks) for (const mark of check.register.marksOf(at)) hurt.add(mark);
    for (const mark of hurt) mark.points.add(point);
  }
  for (const mark of vague) settle(mark, check);
}

interface Attribution {
  readonly check: PointsCheck;
  readonly seen: RecordSet;
  /** What is wrong with a page or below it, for pages where anything is. */
  readonly below: Map<string, ReadonlySet<Mark>>;
}

async function attributeDisk(
  disk: DiskState,
  hurt: Set<Mark>,
  { check, seen, below }: Attribution,
  signal: AbortSignal,
): Promise<void> {
  const map = new BlockMap(disk, disk.root, check.tools.reader);
  // Pages from the root down to where the walk is.
  const path: { readonly key: string; readonly marks: Set<Mark> }[] = [];
  const blame = (marks: Iterable<Mark>): void => {
    for (const mark of marks) {
      hurt.add(mark);
      for (const page of path) {
        page.marks.add(mark);
        below.set(page.key, page.marks);
      }
    }
  };
  const guide: WalkGuide = {
    enter(ref, level) {
      path.length = map.level - level;
      const key = keyOf(ref);
      const known = [...check.register.marksOf(ref), ...(below.get(key) ?? [])];
      if (!seen.add(ref) || check.register.marksOf(ref).length > 0) {
        blame(known);
        return false;
      }
      path.push({ key, marks: new Set() });
      return true;
    },
    unreadable(ref, _level, error) {
      path.pop();
      check.register.notePage(ref, objectOf(check, ref, error), error);
      blame(check.register.marksOf(ref));
    },
  };
  for await (const { page } of map.pages(signal, guide))
    if ('runs' in page) for (const run of page.runs) blame(check.register.marksOf(run.at));
}

/** An object that is damaged as a whole hurts whom its parts hurt: to lie within its life is not enough any more. */
function settle(mark: Mark, { register }: PointsCheck): void {
  mark.certain = true;
  if (!mark.records.isEmpty) return;
  const related = register.marks.filter(({ object }) => object === mark.object);
  for (const { points } of related) for (const point of points) mark.points.add(point);
}

function keyOf(at: RecordAddress): string {
  return `${segmentKey(at)}.${at.record}`;
}
