import { untilAborted } from '../../hypervisors/until-aborted.ts';
import { isDamage } from '../../replica/damage.ts';
import type { DiskState } from '../../replica/manifest.ts';
import { segmentKey } from '../../replica/names.ts';
import type { Run } from '../../replica/page.ts';
import { type CoalescedRange, coalesce, type SegmentReader } from '../../replica/segment-reader.ts';
import { fetchRange, type PlannedRecord, splitByPlaintext } from '../fetch-range.ts';
import { errorOf, type OpenedPiece, openRange, type RecordFailure, wholeRun } from '../open-range.ts';
import type { RestoreWorkers } from '../restore-workers.ts';

/** Cheaper to fetch along than to ask twice; small, for what a guest reads at boot lies scattered. */
const gapBytesMax = 32 * 1024;
const rangeBytesMax = 2 * 2 ** 20;
/** One record of the usual size keeps this thread for a millisecond; more is for the worker threads. */
const openedHereBytesMax = 256 * 1024;

export interface FetcherTools {
  readonly reader: SegmentReader;
  readonly workers: RestoreWorkers;
  readonly rangesInFlightMax: number;
  /** Gets every block that was opened. */
  readonly keep: (disk: DiskState, piece: OpenedPiece) => void;
  /** A record that is not what it should be, each time that it is met. */
  readonly damaged: (disk: DiskState, record: PlannedRecord, error: Error) => void;
}

type Take = (piece: OpenedPiece) => void;

interface Wanted extends PlannedRecord {
  readonly key: string;
  readonly disk: DiskState;
  readonly takers: Set<Take>;
  readonly done: PromiseWithResolvers<void>;
  /** Nobody waits for it. */
  ahead: boolean;
}

/** The record of a run with all of its blocks that the leaf still uses: it is fetched and opened as one. */
export function recordOf(run: Run, leaf: readonly Run[]): PlannedRecord {
  const alike = leaf.filter(({ at }) => at.record === run.at.record && segmentKey(at) === segmentKey(run.at));
  return { ...run.at, run, pieces: alike.map(wholeRun) };
}

/**
 * Fetches records, a bounded number of ranges at a time. While those are under way further ones gather, and what lies side by side then goes
 * into one request. Whoever asks for a record that is on its way waits for the same one.
 */
export class RecordFetcher {
  readonly #tools: FetcherTools;
  readonly #signal: AbortSignal;
  readonly #pending = new Map<string, Wanted>();
  readonly #queue = new Set<Wanted>();
  #inFlight = 0;
  #scheduled = false;
  /** Of all requests for ranges that were answered. */
  fetchedBytes = 0;
  ranges = 0;

  constructor(tools: FetcherTools, signal: AbortSignal) {
    this.#tools = tools;
    this.#signal = signal;
  }

  /** `take` gets the record's blocks, every one checked, before it resolves; their memory is used again as soon as `take` returns. */
  async fetch(disk: DiskState, record: PlannedRecord, take: Take, signal: AbortSignal): Promise<void> {
    const wanted = this.#want(disk, record, false);
    wanted.takers.add(take);
    try {
      await untilAborted(wanted.done.promise, signal);
    } finally {
      wanted.takers.delete(take);
    }
  }

  /** Fetches it when nobody waits for anything else. What goes wrong is told to whoever asks for the record. */
  fetchAhead(disk: DiskState, record: PlannedRecord): void {
    this.#want(disk, record, true);
  }

  #want(disk: DiskState, record: PlannedRecord, ahead: boolean): Wanted {
    const key = `${segmentKey(record)} ${record.record}`;
    const known = this.#pending.get(key);
    if (known !== undefined) {
      known.ahead &&= ahead;
      return known;
    }
    const wanted = { ...record, key, disk, ahead, takers: new Set<Take>(), done: Promise.withResolvers<void>() };
    // Nobody may be waiting for it when it fails.
    wanted.done.promise.catch(() => undefined);
    this.#pending.set(key, wanted);
    this.#queue.add(wanted);
    this.#schedule();
    return wanted;
  }

  /** After all that is asked for in this turn of the event loop. */
  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      this.#pump();
    });
  }

  #pump(): void {
    const { rangesInFlightMax } = this.#tools;
    for (const ahead of [false, true]) {
      // One place is kept for those who wait.
      const free = (ahead && rangesInFlightMax > 1 ? rangesInFlightMax - 1 : rangesInFlightMax) - this.#inFlight;
      if (free <= 0 || this.#queue.size === 0) continue;
      for (const range of this.#rangesOf(ahead).slice(0, free)) this.#begin(range);
    }
  }

  /** What lies beside a range that somebody waits for and is to be read ahead comes along. */
  #rangesOf(ahead: boolean): readonly CoalescedRange<Wanted>[] {
    const disks = Map.groupBy(this.#queue, ({ disk }) => disk);
    const ranges = [...disks].flatMap(([disk, wanted]) =>
      coalesce(wanted, gapBytesMax, rangeBytesMax).flatMap((range) => [...splitByPlaintext(range, disk.blockSize)]),
    );
    return ahead ? ranges : ranges.filter(({ members }) => members.some((member) => !member.ahead));
  }

  #begin(range: CoalescedRange<Wanted>): void {
    for (const member of range.members) this.#queue.delete(member);
    this.#inFlight += 1;
    void this.#serve(range).finally(() => {
      this.#inFlight -= 1;
      this.#pump();
    });
  }

  /** Never rejects. An object that is damaged or cut fails the range; each record by itself then says whether it is hurt. */
  async #serve(range: CoalescedRange<Wanted>): Promise<void> {
    try {
      await this.#open(range);
    } catch (error) {
      const [first] = range.members;
      if (range.members.length > 1 && isDamage(error))
        for (const member of range.members) await this.#serve(alone(member));
      else if (first !== undefined) for (const member of range.members) this.#fail(member, error);
    }
  }

  async #open(range: CoalescedRange<Wanted>): Promise<void> {
    const { workers, keep } = this.#tools;
    const disk = range.members[0]?.disk;
    if (disk === undefined) return;
    const { keys, task } = await fetchRange(disk, range, this.#tools, this.#signal);
    this.#signal.throwIfAborted();
    this.fetchedBytes += task.bytes.length;
    this.ranges += 1;
    const byBlock = new Map(
      range.members.flatMap((member) => blocksOf(member).map((block) => [block, member] as const)),
    );
    const give = (piece: OpenedPiece) => {
      keep(disk, piece);
      for (const take of byBlock.get(piece.firstBlock)?.takers ?? []) take(piece);
    };
    if (isSmall(range)) {
      const bare = { ...task, dataKey: keys.key.bytes, digestKey: keys.machineKeys.digestKey };
      this.#conclude(range, openRange(bare, give));
      workers.giveBack(task.bytes);
      return;
    }
    await workers.openSome(keys, task, this.#signal, async (pieces, failures) => {
      for (const piece of pieces) give(piece);
      this.#conclude(range, failures);
    });
  }

  #conclude({ members }: CoalescedRange<Wanted>, failures: readonly RecordFailure[]): void {
    const failed = new Map(failures.map((failure) => [failure.record, failure]));
    for (const member of members) {
      const failure = failed.get(member.record);
      if (failure === undefined) this.#settle(member);
      else this.#fail(member, errorOf(failure));
    }
  }

  #settle(wanted: Wanted): void {
    this.#pending.delete(wanted.key);
    wanted.done.resolve();
  }

  #fail(wanted: Wanted, error: unknown): void {
    this.#pending.delete(wanted.key);
    if (isDamage(error)) this.#tools.damaged(wanted.disk, wanted, error);
    wanted.done.reject(error);
  }
}

/** Of the wanted pieces; a block that is in use belongs to one record alone. */
function blocksOf({ run, pieces }: PlannedRecord): readonly number[] {
  return pieces.map(({ inside }) => run.first - run.inside + inside);
}

/** Opened sooner than a thread would hear of it. */
function isSmall({ members }: CoalescedRange<Wanted>): boolean {
  const [only] = members;
  return (
    members.length === 1 && only !== undefined && only.run.recordBlocks * only.disk.blockSize <= openedHereBytesMax
  );
}

function alone(member: Wanted): CoalescedRange<Wanted> {
  return { id: member, offset: member.offset, length: member.length, members: [member] };
}
