import type { NbdDisk } from '../nbd/nbd-disk.ts';
import type { VsphereServer } from './vsphere-machine.ts';

/** A disk as a snapshot froze it: what the data path needs to open it. */
export interface FrozenDisk {
  readonly server: VsphereServer;
  /** SHA-1 of the certificate that the control connection trusted, 40 lower-case hex digits: the only one that the data path may trust. */
  readonly sha1Thumbprint: string;
  /** The machine, `vm-57`. */
  readonly machineId: string;
  /** `snapshot-61`. */
  readonly snapshotId: string;
  /** `[datastore] folder/name.vmdk`, from the snapshot's own configuration. */
  readonly file: string;
  readonly capacityBytes: number;
}

/** Resolves when the disk can be read. Disposing ends every process that was started for it: only then may the snapshot go. */
export type OpenFrozenDisk = (disk: FrozenDisk, signal: AbortSignal) => Promise<OpenedDisk>;

export interface OpenedDisk extends AsyncDisposable {
  readonly disk: NbdDisk;
}
