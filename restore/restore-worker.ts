import { freeBytes } from '../crypto/free-bytes.ts';
import { type OpenedPiece, type OpenedRange, type OpenRangeTask, openRange, type RecordFailure } from './open-range.ts';

/** Entry of restore's worker threads: one exported function per task. */

/** The opened blocks stand on shared memory, one after the other. */
export function openRangeTask(task: OpenRangeTask): OpenedRange {
  const pieces: OpenedPiece[] = [];
  let at = 0;
  const failures = openRange(task, ({ firstBlock, bytes }) => {
    task.into.set(bytes, at);
    pieces.push({ firstBlock, bytes: task.into.subarray(at, at + bytes.length) });
    at += bytes.length;
  });
  freeBytes(task.bytes);
  return { pieces, failures };
}

/** Opens and checks a range, and keeps none of it. */
export function checkRangeTask(task: Omit<OpenRangeTask, 'into'>): readonly RecordFailure[] {
  const failures = openRange(task, () => undefined);
  freeBytes(task.bytes);
  return failures;
}
