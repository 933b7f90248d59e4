/** A machine whose disks are raw files or block devices of this host. */
export interface ImageMachine {
  readonly name: string;
  readonly disks: readonly ImageDisk[];
  /** Files captured whole with each point: UEFI variables, domain XML. Each is named after its file. */
  readonly attachments?: readonly string[];
}

export interface ImageDisk {
  readonly label: string;
  readonly path: string;
}
