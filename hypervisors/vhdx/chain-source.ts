import type { BlockSource, FilePiece } from '../hypervisor.ts';
import { capacityOf, diskRuns, readDisk } from './chain-reader.ts';
import type { ImageChain } from './image-chain.ts';

/** How a disk that a chain holds is read: by `read`, or by worker threads themselves where all of it lies in files of this host. */
export function readsOf(chain: ImageChain): Pick<BlockSource, 'capacityBytes' | 'read' | 'direct' | 'changesOnly'> {
  const capacityBytes = capacityOf(chain);
  return {
    capacityBytes,
    async read(offset, into, signal) {
      signal.throwIfAborted();
      if (offset < 0 || offset + into.length > capacityBytes)
        throw new RangeError(`read of ${into.length} bytes at ${offset} leaves the disk of ${capacityBytes} bytes`);
      await readDisk(chain, offset, into, signal);
    },
    direct: {
      locate: (offset, length, signal) => locate(chain, offset, Math.min(length, capacityBytes - offset), signal),
      noteRead: () => undefined,
    },
    changesOnly: false,
  };
}

/** A thread that is handed more pieces than this would spend its time on taking them in. */
const piecesMax = 4096;

async function locate(
  chain: ImageChain,
  offset: number,
  length: number,
  signal: AbortSignal,
): Promise<readonly FilePiece[] | null> {
  const pieces: FilePiece[] = [];
  for await (const run of diskRuns(chain, offset, offset + length, signal)) {
    if (run.file === null) continue;
    const fd = run.file.directFd(run.at, run.length);
    if (fd === null || pieces.length === piecesMax) return null;
    pieces.push({ at: run.offset, length: run.length, fd, offset: run.at });
  }
  return pieces;
}
