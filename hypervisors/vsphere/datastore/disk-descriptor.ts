/** The text file that describes a disk and names the file that holds its bytes. */

export interface FlatExtent {
  /** In the folder of the descriptor. */
  readonly file: string;
  readonly bytes: number;
}

const sectorBytes = 512;
/** Access, sectors, type, file; the rest is an offset that flat files of a datastore do not have. */
const extentLine = /^(RW|RDONLY|NOACCESS)\s+(\d+)\s+(\w+)(?:\s+"([^"]*)"(?:\s+(\d+))?)?\s*$/;

/** The one flat file behind it, or why there is none: then its bytes can only be had through VDDK. */
export function readDescriptor(text: string): FlatExtent | { readonly refusal: string } {
  if (!text.startsWith('# Disk DescriptorFile')) return { refusal: 'what describes it is no disk descriptor' };
  const extents = text.split(/\r?\n/).flatMap((line) => {
    const [, , sectors, type, file, offset = '0'] = extentLine.exec(line) ?? [];
    return sectors === undefined || type === undefined ? [] : [{ sectors: Number(sectors), type, file, offset }];
  });
  const [only] = extents;
  if (only === undefined || extents.length > 1) return { refusal: `it consists of ${extents.length} files` };
  if (only.type !== 'VMFS' && only.type !== 'FLAT')
    return { refusal: `its file is of the kind ${only.type}: it stands on other files, or on no file at all` };
  const isInFolder = only.file !== undefined && only.file !== '' && !only.file.includes('/') && only.offset === '0';
  if (!isInFolder || only.file === undefined) return { refusal: 'its file is not in its folder' };
  return { file: only.file, bytes: only.sectors * sectorBytes };
}

export interface NewDescriptor {
  /** In the folder of the descriptor. */
  readonly flatFile: string;
  readonly capacityBytes: number;
  readonly bus: string;
  /** Of virtual hardware, as `vmx-19`. */
  readonly hardwareVersion: string | null;
  /** 8 hex digits that stand for the content. */
  readonly contentId: string;
}

const [heads, sectorsPerTrack] = [255, 63];

/**
 * Of one flat file. The disk's UUID is left out: a host gives it one when it first opens it, and two disks of one UUID are not told apart.
 */
export function writeDescriptor({ flatFile, capacityBytes, bus, hardwareVersion, contentId }: NewDescriptor): string {
  const sectors = Math.ceil(capacityBytes / sectorBytes);
  const version = /^vmx-0*(\d+)$/.exec(hardwareVersion ?? '')?.[1] ?? '8';
  return `# Disk DescriptorFile
version=1
encoding="UTF-8"
CID=${contentId}
parentCID=ffffffff
createType="vmfs"

# Extent description
RW ${sectors} VMFS "${flatFile}"

# The Disk Data Base
#DDB

ddb.adapterType = "${bus === 'ide' ? 'ide' : 'lsilogic'}"
ddb.geometry.cylinders = "${Math.floor(sectors / (heads * sectorsPerTrack))}"
ddb.geometry.heads = "${heads}"
ddb.geometry.sectors = "${sectorsPerTrack}"
ddb.virtualHWVersion = "${version}"
`;
}
