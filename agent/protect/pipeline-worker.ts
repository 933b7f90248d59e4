import type { SealedSegment } from '../../replica/segment.ts';
import { type SealTask, seal } from './seal-task.ts';
import { type Squeezed, type SqueezeTask, squeeze } from './squeeze.ts';

/** Entry of the worker threads: one exported function per task. Blocks and segments lie on shared memory and are never copied. */

export function squeezeTasks(tasks: readonly SqueezeTask[]): readonly (Squeezed | null)[] {
  return tasks.map(squeeze);
}

export function sealSegmentTask(task: SealTask): SealedSegment {
  return seal(task);
}
