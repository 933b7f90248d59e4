import { BlockMap, type PageSource } from '../../replica/block-map.ts';
import type { ChainState } from '../../replica/chain-state.ts';
import { chooseMostlyDead } from '../../replica/compaction.ts';
import { FormatInvalid, toHex } from '../../replica/encoding.ts';
import type { DiskState } from '../../replica/manifest.ts';
import { type SegmentId, segmentKey } from '../../replica/names.ts';
import type { Run } from '../../replica/page.ts';
import type { MachineState } from '../state/machine-state.ts';
import { type Credit, noCredit } from '../vigilance/compaction-credit.ts';
import type { BlockRange } from '../vigilance/lap.ts';

/** What is alive in mostly dead segments is sent again from the source disk, so that they go with the older points: docs/decisions/0091. */

const dayMs = 24 * 3_600_000;
/** Of a run; a block is remembered with 100 bytes at most, and 4 GiB of disk are read. */
const unitsPerRunMax = 65_536;

export interface CompactionLimits {
  /** So much more than what changed may be sent, as a share of it; 0: nothing is compacted. */
  readonly share: number;
  readonly bytesPerRunMax: number;
}

export interface Compaction {
  readonly segments: ReadonlySet<string>;
  /** By disk id as hex; none for a disk of which nothing is found. */
  readonly disks: ReadonlyMap<string, DiskCompaction>;
  /** Once the point is published. */
  readonly credit: (sent: SentBytes) => Credit;
}

/** Ascending and disjoint, both. */
export interface DiskCompaction {
  /** To be read, compared with the map, and sent. */
  readonly resend: readonly BlockRange[];
  /** One block below each page that lies in such a segment: a leaf that is looked at has its pages moved. */
  readonly touch: readonly BlockRange[];
}

export interface SentBytes {
  /** Stored of what changed. */
  readonly changed: number;
  /** Stored of what was sent again. */
  readonly compacted: number;
}

export const nothingToCompact: DiskCompaction = { resend: [], touch: [] };

export interface CompactionTools {
  readonly chain: ChainState;
  readonly state: MachineState;
  readonly limits: CompactionLimits;
  /** Of the snapshot. */
  readonly nowMs: number;
  /** False: nothing is compacted by this run. */
  readonly isWhole: boolean;
}

/** No page is fetched for it: what this host does not have of the map stays where it is. */
export async function planCompaction(
  disks: readonly DiskState[],
  { chain, state, limits, nowMs, isWhole }: CompactionTools,
  signal: AbortSignal,
): Promise<Compaction> {
  const before = state.trackRecord.compaction ?? noCredit;
  const isDue = isWhole && limits.share > 0 && isLastOfDay(nowMs, before);
  const bytesMax = Math.min(before.bytes, limits.bytesPerRunMax);
  const chosen = isDue ? chooseMostlyDead(chain.segments.values(), { bytesMax, unitsMax: unitsPerRunMax }) : [];
  const segments = new Set(chosen.map(segmentKey));
  const found = new Map<string, DiskCompaction>();
  if (segments.size > 0)
    for (const disk of disks)
      found.set(toHex(disk.diskId), await findBlocks(disk, segments, localPages(state), signal));
  return {
    segments,
    disks: found,
    credit: ({ changed, compacted }) => ({
      bytes: Math.max(0, Math.min(limits.bytesPerRunMax, before.bytes + changed * limits.share) - compacted),
      sentBytes: before.sentBytes + compacted,
      seenMs: nowMs,
      doneMs: isDue ? nowMs : before.doneMs,
    }),
  };
}

/**
 * Retention keeps the newest point of a day (UTC) for the longest: what it uses had better lie in few segments. So the run that is probably
 * the last of its day compacts, and one that comes a day after the last that did.
 */
function isLastOfDay(nowMs: number, { seenMs, doneMs }: Credit): boolean {
  const nextMs = nowMs + Math.max(0, nowMs - (seenMs ?? nowMs));
  return Math.floor(nextMs / dayMs) > Math.floor(nowMs / dayMs) || nowMs - (doneMs ?? seenMs ?? nowMs) >= dayMs;
}

export function isChosen({ segments }: Compaction, id: SegmentId): boolean {
  return segments.size > 0 && segments.has(segmentKey(id));
}

async function findBlocks(
  disk: DiskState,
  segments: ReadonlySet<string>,
  pages: LocalPages,
  signal: AbortSignal,
): Promise<DiskCompaction> {
  const guide = { enter: pages.has, unreadable: rethrow };
  const [resend, touch]: [BlockRange[], BlockRange[]] = [[], []];
  let touchNext = false;
  for await (const { ref, page } of new BlockMap(disk, disk.root, pages).pages(signal, guide)) {
    touchNext ||= segments.has(segmentKey(ref));
    if (!('runs' in page)) continue;
    const chosen = page.runs.filter(({ at }) => segments.has(segmentKey(at)));
    for (const run of chosen) append(resend, run);
    const [first] = page.runs;
    if (touchNext && chosen.length === 0 && first !== undefined) append(touch, { first: first.first, count: 1 });
    touchNext = false;
  }
  return { resend, touch };
}

function rethrow(_ref: unknown, _level: number, error: unknown): never {
  throw error;
}

function append(ranges: BlockRange[], { first, count }: Pick<Run, 'first' | 'count'>): void {
  const last = ranges.at(-1);
  if (last?.end === first) ranges[ranges.length - 1] = { first: last.first, end: first + count };
  else ranges.push({ first, end: first + count });
}

interface LocalPages extends PageSource {
  readonly has: (ref: { readonly digest: Uint8Array }) => boolean;
}

function localPages(state: MachineState): LocalPages {
  return {
    has: ({ digest }) => state.hasPage(digest),
    readPage: async (_geometry, { digest, tenure, number }) => {
      const page = state.page(digest);
      if (page === null)
        throw new FormatInvalid(`segment ${tenure}.${number}`, 0, 'a page that is not kept here any more');
      return page;
    },
    prefetch: () => Promise.resolve(),
  };
}
