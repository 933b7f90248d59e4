import { getPriority, setPriority } from 'node:os';
import type { SealedSegment } from '../../replica/segment.ts';
import { type SealTask, seal } from './seal-task.ts';
import { type Squeezed, type SqueezeTask, squeeze } from './squeeze.ts';

/** Entry of the worker threads: one exported function per task. Blocks and segments lie on shared memory and are never copied. */

/** Machines that run on this host, and what reads their disks, go first: the agent's arithmetic has time. 0 to 19, as `nice` has it. */
const niceness = 10;

// On Linux a priority is a thread's own; elsewhere it would be the whole agent's, which thaws guests, too. Who started it nicer meant that.
if (process.platform === 'linux' && getPriority() < niceness) {
  try {
    setPriority(niceness);
  } catch {
    // It is politeness: where a container's rules forbid the call, the run does without.
  }
}

export function squeezeTasks(tasks: readonly SqueezeTask[]): readonly (Squeezed | null)[] {
  return tasks.map(squeeze);
}

export function sealSegmentTask(task: SealTask): SealedSegment {
  return seal(task);
}
