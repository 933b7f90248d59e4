import type { QemuDisk } from './qemu-disks.ts';
import type { DiskTracking } from './tracking-bitmaps.ts';

/** A disk that a snapshot takes. */
export interface TakenDisk {
  /** Names its parts inside QEMU. */
  readonly index: number;
  readonly disk: QemuDisk;
  readonly tracking: DiskTracking;
  /** `pull`: we read from QEMU's NBD server. `push`: QEMU writes to ours. */
  readonly mode: 'pull' | 'push';
}
