import { writeSync } from 'node:fs';
import { copyBytes } from '../crypto/copy-bytes.ts';
import type { FilePiece } from '../hypervisors/hypervisor.ts';
import {
  type OpenedPiece,
  type OpenedRange,
  type OpenRangeTask,
  type OutputFile,
  openRange,
  type RecordFailure,
  type SystemRefusal,
} from './open-range.ts';

/** Entry of restore's worker threads: one exported function per task. */

export function openRangeTask(task: OpenRangeTask): OpenedRange {
  return 'pieces' in task.into ? openIntoFile(task, task.into) : openIntoMemory(task, task.into);
}

/** The opened blocks stand on shared memory, one after the other. */
function openIntoMemory(task: OpenRangeTask, into: Uint8Array): OpenedRange {
  const pieces: OpenedPiece[] = [];
  let at = 0;
  const failures = openRange(task, ({ firstBlock, bytes }) => {
    copyBytes(bytes, into, at);
    pieces.push({ firstBlock, bytes: into.subarray(at, at + bytes.length) });
    at += bytes.length;
  });
  return { pieces, failures, writtenBytes: 0, refusal: null };
}

/** Each piece is written while it is still in the core's cache. After a refusal the rest is opened, and nothing more written. */
function openIntoFile(task: OpenRangeTask, { pieces, capacityBytes }: OutputFile): OpenedRange {
  let writtenBytes = 0;
  let refusal: SystemRefusal | null = null;
  const failures = openRange(task, ({ firstBlock, bytes }) => {
    if (refusal !== null) return;
    const at = firstBlock * task.blockSize;
    const content = bytes.subarray(0, Math.min(bytes.length, capacityBytes - at));
    refusal = writeFully(pieces, content, at);
    if (refusal === null) writtenBytes += content.length;
  });
  return { pieces: [], failures, writtenBytes, refusal };
}

function writeFully(pieces: readonly FilePiece[], bytes: Uint8Array, start: number): SystemRefusal | null {
  try {
    let left = bytes.length;
    for (const { at, length, fd, offset } of pieces) {
      const to = Math.min(start + bytes.length, at + length) - start;
      for (let done = Math.max(0, at - start); done < to; ) {
        const written = writeSync(fd, bytes, done, to - done, offset + start + done - at);
        done += written;
        left -= written;
      }
    }
    // Bytes that go nowhere would be a hole in what was restored.
    if (left !== 0) throw new RangeError(`${left} of ${bytes.length} bytes at ${start} have no place in the output`);
    return null;
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && 'syscall' in error)) throw error;
    return { message: error.message, code: String(error.code), syscall: String(error.syscall) };
  }
}

/** Opens and checks a range, and keeps none of it. */
export function checkRangeTask(task: Omit<OpenRangeTask, 'into'>): readonly RecordFailure[] {
  return openRange(task, () => undefined);
}
