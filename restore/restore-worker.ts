import { move, transferableSymbol, valueSymbol } from 'piscina';
import { freeBytes } from '../crypto/free-bytes.ts';
import { type OpenedPiece, type OpenedRange, type OpenRangeTask, openRange, type RecordFailure } from './open-range.ts';

/** Entry of restore's worker threads: one exported function per task. */

/** The opened blocks move to the main thread in one buffer, uncopied. */
export function openRangeTask(task: OpenRangeTask): OpenedRange {
  // Not zeroed first: only what was opened is given out.
  const all = new Uint8Array(Buffer.allocUnsafeSlow(wantedBytes(task)).buffer);
  const pieces: OpenedPiece[] = [];
  let at = 0;
  const failures = openRange(task, ({ firstBlock, bytes }) => {
    all.set(bytes, at);
    pieces.push({ firstBlock, bytes: all.subarray(at, at + bytes.length) });
    at += bytes.length;
  });
  freeBytes(task.bytes);
  // Piscina unwraps this on its way, so that the caller receives the value.
  return move({
    [transferableSymbol]: all.buffer,
    [valueSymbol]: { pieces, failures },
  } as never) as unknown as OpenedRange;
}

/** Opens and checks a range, and keeps none of it. */
export function checkRangeTask(task: OpenRangeTask): readonly RecordFailure[] {
  const failures = openRange(task, () => undefined);
  freeBytes(task.bytes);
  return failures;
}

function wantedBytes({ records, blockSize }: OpenRangeTask): number {
  return records.reduce(
    (sum, { pieces }) => sum + pieces.reduce((blocks, { count }) => blocks + count, 0) * blockSize,
    0,
  );
}
