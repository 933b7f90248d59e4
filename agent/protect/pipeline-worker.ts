import { move, transferableSymbol, valueSymbol } from 'piscina';
import type { SealedSegment } from '../../replica/segment.ts';
import { type SealTask, seal } from './seal-task.ts';

/** Entry of the worker threads: one exported function per task. */

export { squeeze } from './squeeze.ts';

/** The segment's bytes are moved to the main thread, not copied. */
export function sealSegmentTask(task: SealTask): SealedSegment {
  const sealed = seal(task);
  // Piscina unwraps this on its way, so that the caller receives the value.
  return move({
    [transferableSymbol]: sealed.bytes.buffer,
    [valueSymbol]: sealed,
  } as never) as unknown as SealedSegment;
}
