import { move, transferableSymbol, valueSymbol } from 'piscina';
import { type OpenedRange, type OpenRangeTask, openRange, type RecordFailure } from './open-range.ts';

/** Entry of restore's worker threads: one exported function per task. */

/** The opened blocks move to the main thread in one buffer, uncopied. */
export function openRangeTask(task: OpenRangeTask): OpenedRange {
  const opened = openRange(task);
  const all = new Uint8Array(opened.pieces.reduce((sum, { bytes }) => sum + bytes.length, 0));
  let at = 0;
  const pieces = opened.pieces.map(({ firstBlock, bytes }) => {
    all.set(bytes, at);
    at += bytes.length;
    return { firstBlock, bytes: all.subarray(at - bytes.length, at) };
  });
  // Piscina unwraps this on its way, so that the caller receives the value.
  return move({
    [transferableSymbol]: all.buffer,
    [valueSymbol]: { pieces, failures: opened.failures },
  } as never) as unknown as OpenedRange;
}

/** Opens and checks a range, and keeps none of it. */
export function checkRangeTask(task: OpenRangeTask): readonly RecordFailure[] {
  return openRange(task).failures;
}
