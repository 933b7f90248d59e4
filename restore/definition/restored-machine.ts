/** A machine that was restored, and what it is to be at its new place. */
export interface RestoredMachine {
  readonly name: string;
  readonly disks: readonly RestoredDisk[];
  /** The file with its UEFI variables; null where the point has none. */
  readonly nvram: string | null;
  /** The libvirt network that its interfaces are connected to; null: it gets no interface. */
  readonly network: string | null;
}

export interface RestoredDisk {
  readonly label: string;
  /** Absolute. */
  readonly path: string;
  readonly format: 'raw' | 'qcow2' | 'vhdx';
}
