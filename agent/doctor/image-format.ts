import type { ImageSourceConfig } from '../config/config-schema.ts';

type ImageDisk = Extract<ImageSourceConfig['disks'][number], { readonly path: string }>;

/** How image files begin. A guest may write the same onto a raw disk, so that it is a reason to ask and no proof. */
const beginnings: readonly (readonly [format: NonNullable<ImageDisk['format']>, offset: number, bytes: string])[] = [
  ['qcow2', 0, 'QFI\xfb'],
  ['vmdk', 0, 'KDMV'],
  ['vmdk', 0, '# Disk DescriptorFile'],
  ['vhdx', 0, 'vhdxfile'],
  ['vpc', 0, 'conectix'],
  ['vdi', 64, '\x7f\x10\xda\xbe'],
];

/** The format that the first bytes of a disk look like; null: of none that there is. */
export function formatOf(first: Uint8Array): string | null {
  const found = beginnings.find(([, offset, bytes]) =>
    Buffer.from(bytes, 'latin1').equals(first.subarray(offset, offset + bytes.length)),
  );
  return found?.[0] ?? null;
}

/** Whether its bytes are taken as they are. */
export function isRaw(disk: ImageSourceConfig['disks'][number]): boolean {
  return 'path' in disk && (disk.format ?? 'raw') === 'raw';
}
