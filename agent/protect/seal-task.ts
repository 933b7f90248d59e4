import { DataKey } from '../../crypto/data-key.ts';
import { type SealedSegment, type SegmentHeader, sealSegment, type UnsealedRecord } from '../../replica/segment.ts';

/** Sealing one segment: a worker's task. */
export interface SealTask {
  /** The data key, on shared memory: the main thread zeroes it for all. */
  readonly dataKey: Uint8Array;
  readonly saltKey: Uint8Array;
  readonly header: SegmentHeader;
  readonly records: readonly UnsealedRecord[];
  /** On shared memory, with the bodies of the records at their places. */
  readonly into: Uint8Array;
}

export function seal(task: SealTask): SealedSegment {
  return sealSegment(new DataKey(task.dataKey), task.saltKey, task.header, task.records, { into: task.into });
}
