import { blockDigest, digestBytes, prepareDigestKey } from '../crypto/suite.ts';
import type { FilePiece } from '../hypervisors/hypervisor.ts';
import { BlockMap, blockCountOf } from '../replica/block-map.ts';
import { eachInParallel, inParallel } from '../replica/in-parallel.ts';
import type { DiskState } from '../replica/manifest.ts';
import type { Run } from '../replica/page.ts';
import type { CoalescedRange, SegmentReader } from '../replica/segment-reader.ts';
import { fetchRange, type PlannedRecord, RecordPlan, rangeBytesMax } from './fetch-range.ts';
import { type WantedPiece, wholeRun } from './open-range.ts';
import type { RestoreWorkers } from './restore-workers.ts';
import type { DirectWrites, RestoreSink } from './sinks/sink.ts';

/** chain → block map → plan → ranged gets → open → blocks → new disk. Memory is bounded by the window, whatever the disk size. */

const windowBytes = 256 * 2 ** 20;
const zeroPieceBytes = 2 ** 20;
/** Runs that are read back and compared at a time; each is at most one record. */
const comparedAtOnceMax = 8;

export interface RestoreTools {
  readonly reader: SegmentReader;
  readonly workers: RestoreWorkers;
  readonly rangesInFlightMax: number;
  readonly progress: RestoreProgress;
}

export interface RestoreProgress {
  capacityBytes: number;
  fetchedBytes: number;
  writtenBytes: number;
  /** Found in place already, by digest. */
  keptBytes: number;
}

/** Fills the sink with the disk's content; the caller completes it. */
export async function restoreDisk(
  disk: DiskState,
  sink: RestoreSink,
  tools: RestoreTools,
  signal: AbortSignal,
): Promise<void> {
  tools.progress.capacityBytes += disk.capacityBytes;
  const ranges = (either: AbortSignal) => rangesOf(disk, sink, tools, either);
  await eachInParallel(ranges, tools.rangesInFlightMax, signal, (range, either) =>
    restoreRange(disk, range, sink, tools, either),
  );
}

type Range = CoalescedRange<PlannedRecord>;

/** What has to be fetched, window after window. What reads as zero is cleared on the way. */
async function* rangesOf(
  disk: DiskState,
  sink: RestoreSink,
  tools: RestoreTools,
  signal: AbortSignal,
): AsyncGenerator<Range> {
  const map = new BlockMap(disk, disk.root, tools.reader);
  let window: Run[] = [];
  let mappedBytes = 0;
  let end = 0;
  for await (const run of map.runs(signal)) {
    await clear(disk, sink, end, run.first, signal);
    end = run.first + run.count;
    window.push(run);
    mappedBytes += run.count * disk.blockSize;
    if (mappedBytes < windowBytes) continue;
    yield* await planWindow(disk, window, sink, tools, signal);
    window = [];
    mappedBytes = 0;
  }
  yield* await planWindow(disk, window, sink, tools, signal);
  await clear(disk, sink, end, blockCountOf(disk), signal);
}

/** Blocks that read as zero: nothing to do on a new file, zeros where something else stands. */
async function clear(
  disk: DiskState,
  sink: RestoreSink,
  fromBlock: number,
  toBlock: number,
  signal: AbortSignal,
): Promise<void> {
  if (sink.startsZeroed) return;
  const to = Math.min(toBlock * disk.blockSize, disk.capacityBytes);
  const zeros = new Uint8Array(zeroPieceBytes);
  const found = new Uint8Array(zeroPieceBytes);
  for (let at = fromBlock * disk.blockSize; at < to; at += zeroPieceBytes) {
    const length = Math.min(zeroPieceBytes, to - at);
    await sink.read(at, found.subarray(0, length), signal);
    if (Buffer.compare(found.subarray(0, length), zeros.subarray(0, length)) === 0) continue;
    await sink.write(at, zeros.subarray(0, length), signal);
  }
}

async function planWindow(
  disk: DiskState,
  runs: readonly Run[],
  sink: RestoreSink,
  tools: RestoreTools,
  signal: AbortSignal,
): Promise<readonly Range[]> {
  const plan = new RecordPlan();
  if (sink.mayHoldContent) {
    const missing = await inParallel(runs, comparedAtOnceMax, signal, (run, either) =>
      missingPieces(disk, run, sink, tools, either),
    );
    for (const [i, run] of runs.entries()) plan.add(run, missing[i] ?? []);
  } else for (const run of runs) plan.add(run, [wholeRun(run)]);
  return sink.direct === null ? plan.rangesToKeep(rangeBytesMax, disk.blockSize) : plan.ranges(rangeBytesMax);
}

/** The blocks of a run that are not in place. */
async function missingPieces(
  disk: DiskState,
  run: Run,
  sink: RestoreSink,
  tools: RestoreTools,
  signal: AbortSignal,
): Promise<readonly WantedPiece[]> {
  const { machineKeys } = await tools.reader.keysOf(run.at, signal);
  const digestKey = prepareDigestKey(machineKeys.digestKey);
  const pieces: WantedPiece[] = [];
  const start = run.first * disk.blockSize;
  // Zeroed: beyond the end of the disk a block is.
  const found = new Uint8Array(run.count * disk.blockSize);
  await sink.read(start, found.subarray(0, Math.min(found.length, disk.capacityBytes - start)), signal);
  for (let i = 0; i < run.count; i++) {
    const digest = run.digests.subarray(i * digestBytes, (i + 1) * digestBytes);
    const block = found.subarray(i * disk.blockSize, (i + 1) * disk.blockSize);
    if (Buffer.compare(blockDigest(digestKey, block), digest) === 0) tools.progress.keptBytes += disk.blockSize;
    else pieces.push({ inside: run.inside + i, count: 1, digests: digest });
  }
  return pieces;
}

async function restoreRange(
  disk: DiskState,
  range: Range,
  sink: RestoreSink,
  tools: RestoreTools,
  signal: AbortSignal,
): Promise<void> {
  const { workers, progress } = tools;
  const { keys, task } = await fetchRange(disk, range, tools, signal);
  progress.fetchedBytes += task.bytes.length;
  if (sink.direct !== null) {
    const file = { pieces: await placesFor(disk, range, sink.direct, signal), capacityBytes: disk.capacityBytes };
    const written = await writeDirectly(workers.openInto(keys, task, file, signal), sink.direct);
    progress.writtenBytes += written;
    const end = Math.max(...range.members.map(({ run }) => run.first + run.count));
    sink.direct.noteWritten(Math.min(end * disk.blockSize, disk.capacityBytes));
    return;
  }
  await workers.open(keys, task, signal, async (pieces) => {
    for (const piece of pieces) {
      const at = piece.firstBlock * disk.blockSize;
      const content = piece.bytes.subarray(0, Math.min(piece.bytes.length, disk.capacityBytes - at));
      await sink.write(at, content, signal);
      progress.writtenBytes += content.length;
    }
  });
}

/** Records of one range may lie anywhere on the disk, and what is wanted of one may be several runs with other blocks between. */
async function placesFor(
  disk: DiskState,
  { members }: Range,
  direct: DirectWrites,
  signal: AbortSignal,
): Promise<readonly FilePiece[]> {
  const pieces: FilePiece[] = [];
  for (const { run, pieces: wanted } of members) {
    const recordFirstBlock = run.first - run.inside;
    for (const { inside, count } of wanted) {
      const start = (recordFirstBlock + inside) * disk.blockSize;
      const length = Math.min(count * disk.blockSize, disk.capacityBytes - start);
      pieces.push(...(await direct.place(start, length, signal)));
    }
  }
  return pieces;
}

async function writeDirectly(writing: Promise<number>, direct: DirectWrites): Promise<number> {
  try {
    return await writing;
  } catch (error) {
    throw error instanceof Error ? direct.refusal(error) : error;
  }
}
