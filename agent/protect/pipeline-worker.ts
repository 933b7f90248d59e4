import { move, transferableSymbol, valueSymbol } from 'piscina';
import type { SealedSegment } from '../../replica/segment.ts';
import { type SealTask, seal } from './seal-task.ts';
import { type Squeezed, type SqueezeTask, squeeze } from './squeeze.ts';

/** Entry of the worker threads: one exported function per task. Large results move to the main thread, uncopied. */

export function squeezeTask(task: SqueezeTask): Squeezed {
  const squeezed = squeeze(task);
  return moved(squeezed, squeezed.records[0]?.body);
}

export function sealSegmentTask(task: SealTask): SealedSegment {
  const sealed = seal(task);
  return moved(sealed, sealed.bytes);
}

/** Piscina unwraps this on its way, so that the caller receives the value. */
function moved<Value>(value: Value, bytes: Uint8Array | undefined): Value {
  if (bytes === undefined) return value;
  return move({ [transferableSymbol]: bytes.buffer, [valueSymbol]: value } as never) as unknown as Value;
}
