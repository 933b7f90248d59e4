/** A machine whose disks are image files, block devices or NBD exports. */
export interface ImageMachine {
  readonly name: string;
  readonly disks: readonly ImageDisk[];
  /** Files captured whole with each point: UEFI variables, domain XML. Each is named after its file. */
  readonly attachments?: readonly string[];
}

export type ImageDisk = PathDisk | ExportDisk;

/** A file or block device of this host. */
export interface PathDisk {
  readonly label: string;
  readonly path: string;
  /** Raw unless given; VHDX and VHD are read here, the others through qemu-nbd. */
  readonly format?: ImageFormat;
  /** `bitmap`: a qcow2 image keeps a persistent dirty bitmap from each snapshot to the next, so that a sync needs no scan. */
  readonly tracking?: 'none' | 'bitmap';
}

/** What an NBD server exports, held still by whoever exports it. */
export interface ExportDisk {
  readonly label: string;
  /** An NBD URI. */
  readonly nbd: string;
  /** PEM files, for a server with a private certificate authority or one that asks who we are. */
  readonly tls?: {
    readonly caFile: string | null;
    readonly certificateFile: string | null;
    readonly keyFile: string | null;
  };
}

/** As qemu-nbd calls them. */
export const imageFormats = ['raw', 'qcow2', 'vmdk', 'vpc', 'vhdx', 'vdi'] as const;
export type ImageFormat = (typeof imageFormats)[number];

/** What a file's name says of it; never its content, for that a guest may choose. */
export function formatByName(path: string): ImageFormat {
  if (/\.a?vhdx$/i.test(path)) return 'vhdx';
  return /\.a?vhd$/i.test(path) ? 'vpc' : 'raw';
}

/** For messages. */
export function placeOf(disk: ImageDisk): string {
  return 'path' in disk ? disk.path : disk.nbd;
}
