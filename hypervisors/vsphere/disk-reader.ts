import type { Extent } from '../hypervisor.ts';

/** One disk of a snapshot, open for reading: by VDDK, or from its datastore. Whoever opens it disposes it before the snapshot is removed. */
export interface DiskReader extends AsyncDisposable {
  readonly capacityBytes: number;
  /** Fills `into` exactly, or throws; never short. Safe to call many times in parallel. */
  read(offset: number, into: Uint8Array, signal: AbortSignal): Promise<void>;
  /** Ascending and disjoint; together the whole disk. A part that is called data may well be zero. */
  extents(signal: AbortSignal): AsyncIterable<Extent>;
}

/** The disk, as the snapshot's configuration names it. */
export interface SnapshotDisk {
  /** Managed object references, as `vm-57` and `snapshot-61`. */
  readonly machineRef: string;
  readonly snapshotRef: string;
  /** `[datastore] folder/name.vmdk`. */
  readonly file: string;
  readonly capacityBytes: number;
}

/** Where the snapshot is, and who asks. */
export interface VsphereLogin {
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly password: { reveal(): string };
  /** In DER, the one that the connection to vSphere was found to be trusted by. */
  readonly certificate: Uint8Array;
}
