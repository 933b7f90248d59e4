import type { Extent } from '../hypervisor.ts';
import type { ImageChain } from './image-chain.ts';
import type { FilePart, RandomAccessFile } from './random-access-file.ts';

/** The disk that a chain holds: where each of its bytes lies, and the bytes themselves. */

/** Neighbours differ: together exactly the range that was asked for. */
export interface DiskRun {
  readonly offset: number;
  readonly length: number;
  /** Null: reads as zero. */
  readonly file: RandomAccessFile | null;
  /** Of the run's first byte in the file. */
  readonly at: number;
}

export function capacityOf({ layers }: ImageChain): number {
  return layers[0].capacityBytes;
}

/** Ascending, without gaps; bytes that lie one behind the other in one file are one run. */
export async function* diskRuns(
  chain: ImageChain,
  offset: number,
  end: number,
  signal: AbortSignal,
): AsyncGenerator<DiskRun> {
  let open: DiskRun = { offset, length: 0, file: null, at: 0 };
  for await (const run of layerRuns(chain, 0, offset, end, signal)) {
    const continues = open.file === run.file && (run.file === null || open.at + open.length === run.at);
    if (continues) open = { ...open, length: open.length + run.length };
    else {
      if (open.length > 0) yield open;
      open = run;
    }
  }
  if (open.length > 0) yield open;
}

async function* layerRuns(
  chain: ImageChain,
  index: number,
  offset: number,
  end: number,
  signal: AbortSignal,
): AsyncGenerator<DiskRun> {
  const layer = chain.layers[index];
  for (let at = offset; at < end; ) {
    // Below the lowest layer there is nothing, and a parent may be shorter than its child.
    if (layer === undefined || at >= layer.capacityBytes) {
      yield { offset: at, length: end - at, file: null, at: 0 };
      return;
    }
    const run = await layer.runAt(at, Math.min(end, layer.capacityBytes), signal);
    if (run.kind === 'parent') yield* layerRuns(chain, index + 1, at, at + run.length, signal);
    else yield { offset: at, length: run.length, file: run.kind === 'data' ? layer.file : null, at: run.at };
    at += run.length;
  }
}

/** The whole disk, neighbours differ. */
export async function* diskExtents(chain: ImageChain, signal: AbortSignal): AsyncGenerator<Extent> {
  let open: Extent = { offset: 0, length: 0, zero: false };
  for await (const { offset, length, file } of diskRuns(chain, 0, capacityOf(chain), signal)) {
    const zero = file === null;
    if (open.zero === zero) open = { ...open, length: open.length + length };
    else {
      if (open.length > 0) yield open;
      open = { offset, length, zero };
    }
  }
  if (open.length > 0) yield open;
}

/** Fills `into` exactly: the parts of each file are asked for at once. */
export async function readDisk(
  chain: ImageChain,
  offset: number,
  into: Uint8Array,
  signal: AbortSignal,
): Promise<void> {
  const parts = new Map<RandomAccessFile, FilePart[]>();
  for await (const run of diskRuns(chain, offset, offset + into.length, signal)) {
    const bytes = into.subarray(run.offset - offset, run.offset - offset + run.length);
    if (run.file === null) bytes.fill(0);
    else {
      const wanted = parts.get(run.file) ?? [];
      wanted.push({ offset: run.at, into: bytes });
      parts.set(run.file, wanted);
    }
  }
  const reads = [...parts].map(([file, wanted]) => file.read(wanted, signal));
  for (const read of await Promise.allSettled(reads)) if (read.status === 'rejected') throw read.reason;
}
