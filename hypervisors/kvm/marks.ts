import { randomBytes } from 'node:crypto';

/**
 * The names of what this agent makes inside a QEMU. Whatever carries the machine's tag is ours, and is removed when it is found left behind;
 * nothing else is touched.
 */
export interface Marks {
  readonly prefix: string;
  /** The images that keep what the guest overwrites. QEMU allows 31 characters for the name of a node. */
  node(disk: number): string;
  job(disk: number): string;
  exportName(disk: number): string;
  /** A frozen copy of a bitmap, for as long as the snapshot lasts. */
  frozenBitmap(index: number): string;
  isOurs(name: string): boolean;
  /** The bitmaps that record from one snapshot to the next. */
  isReferencePoint(name: string): boolean;
  /** Sorts by the time at which it was made. */
  newReferencePoint(): string;
}

export function marksOf(tag: string): Marks {
  const prefix = `failkit-${tag}-`;
  return {
    prefix,
    node: (disk) => `${prefix}n${disk}`,
    job: (disk) => `${prefix}j${disk}`,
    exportName: (disk) => `${prefix}e${disk}`,
    frozenBitmap: (index) => `${prefix}frozen${index}`,
    isOurs: (name) => name.startsWith(prefix),
    isReferencePoint: (name) => name.startsWith(`${prefix}point-`),
    newReferencePoint: () =>
      `${prefix}point-${Date.now().toString(36).padStart(9, '0')}-${randomBytes(8).toString('hex')}`,
  };
}
