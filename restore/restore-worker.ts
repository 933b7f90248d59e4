import { type OpenedPiece, type OpenRangeTask, openRange } from './open-range.ts';

/** Entry of restore's worker threads. */
export default function run(task: OpenRangeTask): readonly OpenedPiece[] {
  return openRange(task);
}
