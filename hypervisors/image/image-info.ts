import * as z from 'zod';
import { QemuToolFailed, runQemuImg } from '../nbd/qemu-nbd.ts';

/** What qemu-img says of an image. */

const bitmap = z.object({ name: z.string(), flags: z.array(z.string()) });
/** Of a VMDK that lies in several files. */
const extent = z.object({ filename: z.string() });
const image = z.object({
  'virtual-size': z.int().nonnegative(),
  snapshots: z.array(z.unknown()).prefault([]),
  filename: z.string(),
  'format-specific': z
    .object({
      data: z
        .object({
          compat: z.string().optional(),
          bitmaps: z.array(bitmap).prefault([]),
          extents: z.array(extent).prefault([]),
        })
        .prefault({}),
    })
    .optional(),
});
const chain = z.array(image).min(1);

export interface ImageInfo {
  readonly capacityBytes: number;
  readonly hasSnapshots: boolean;
  /** Of qcow2: 0.10 or 1.1. */
  readonly compatibility: string | null;
  /** The image first, then what it was laid over and what it is split into. */
  readonly files: readonly string[];
  readonly bitmaps: readonly ImageBitmap[];
}

export interface ImageBitmap {
  readonly name: string;
  /** It takes up every write from the next start of the machine on. */
  readonly recording: boolean;
  /** Whoever wrote last did not close the image: nobody knows what is missing from it. */
  readonly inconsistent: boolean;
}

/** `shared`: also while a machine runs from it; what is said of bitmaps is not current then. */
export async function readImageInfo(
  path: string,
  format: string,
  signal: AbortSignal,
  { shared = false }: { readonly shared?: boolean } = {},
): Promise<ImageInfo> {
  const options = shared ? ['--force-share'] : [];
  const command = ['info', '--output=json', '--backing-chain', ...options, '-f', format, '--', path];
  const text = await runQemuImg(command, signal);
  const parsed = chain.safeParse(JSON.parse(text));
  const top = parsed.data?.[0];
  if (parsed.data === undefined || top === undefined)
    throw new QemuToolFailed(`${path}: qemu-img info gave what this agent can't read`);
  const parts = parsed.data.flatMap((each) => [
    each.filename,
    ...(each['format-specific']?.data.extents ?? []).map(({ filename }) => filename),
  ]);
  return {
    capacityBytes: top['virtual-size'],
    hasSnapshots: top.snapshots.length > 0,
    compatibility: top['format-specific']?.data.compat ?? null,
    files: [...new Set([path, ...parts])],
    bitmaps: (top['format-specific']?.data.bitmaps ?? []).map(({ name, flags }) => ({
      name,
      recording: flags.includes('auto'),
      inconsistent: flags.includes('in-use'),
    })),
  };
}
