import type { BlockSource, HypervisorConnection } from '../hypervisors/hypervisor.ts';
import type { Bandwidth } from '../storage-targets/bandwidth.ts';
import { withDisks } from './with-disks.ts';

/** Reads are cut at multiples of it, for disks that want whole sectors. */
const unitBytes = 64 * 1024;

/** Reads of a machine's disks wait for their turn, so that those who use the same storage do not suffer. */
export function withReadRate(connection: HypervisorConnection, rate: Bandwidth): HypervisorConnection {
  return withDisks(connection, (disks) => disks.map((disk) => limitedDisk(disk, rate)));
}

function limitedDisk(disk: BlockSource, rate: Bandwidth): BlockSource {
  return {
    label: disk.label,
    capacityBytes: disk.capacityBytes,
    referencePoint: disk.referencePoint,
    changesOnly: disk.changesOnly,
    changedExtents: (since, signal) => disk.changedExtents(since, signal),
    async read(offset, into, signal) {
      let at = 0;
      do {
        const piece = into.subarray(at, at + pieceBytes(rate));
        await rate.take(piece.length, signal);
        await disk.read(offset + at, piece, signal);
        at += piece.length;
      } while (at < into.length);
    },
    // Asked for before each stretch: a limit that comes meanwhile is kept from the next one on.
    get direct() {
      return rate.bytesPerSecond === null ? disk.direct : null;
    },
  };
}

/** So that a low rate is no row of bursts. */
function pieceBytes(rate: Bandwidth): number {
  if (rate.bytesPerSecond === null) return Number.POSITIVE_INFINITY;
  return Math.ceil(rate.grantBytes / unitBytes) * unitBytes;
}
