import { ChangeTrackingLost } from '../errors.ts';
import type { Marks } from './marks.ts';
import type { QemuDisk } from './qemu-disks.ts';

/**
 * Changed block tracking by dirty bitmaps. Each snapshot adds one to every disk, which records from then on, and reads by a frozen copy of
 * an older one. The older one goes on recording until a later snapshot was asked by a newer: so it covers whatever happens to a run.
 */
export interface DiskTracking {
  /** The bitmap that this snapshot adds: the reference point. */
  readonly added: string;
  /** Bitmaps of older snapshots that can be relied on, and their copies, made right after the instant: they may say more, and never less. */
  readonly frozen: ReadonlyMap<string, string>;
  /** The frozen copy of the bitmap that says what changed since; throws ChangeTrackingLost. */
  frozenSince(since: Uint8Array): string;
  /** Bitmaps of ours that nobody needs any more. */
  useless(): readonly string[];
}

/** Where nobody asks what changed, each snapshot leaves one: which of them the newest point needs, only a later one knows. */
const bitmapsMax = 8;

export function trackDisk(disk: QemuDisk, marks: Marks, added: string): DiskTracking {
  const ours = disk.bitmaps.filter(({ name }) => marks.isReferencePoint(name));
  const reliable = ours.filter(({ inconsistent, recording, busy }) => !inconsistent && recording && !busy);
  const frozen = new Map(reliable.map(({ name }, index) => [name, marks.frozenBitmap(index)]));
  let asked: { readonly since: string } | null = null;
  return {
    added,
    frozen,
    frozenSince(since) {
      const name = new TextDecoder().decode(since);
      asked = { since: name };
      requireTrusted(disk, name);
      const copy = frozen.get(name);
      if (copy === undefined) throw new ChangeTrackingLost(`the bitmap ${name} of disk ${disk.label} is in use`);
      return copy;
    },
    useless() {
      const names = ours.map(({ name }) => name);
      return asked === null ? excess(names) : names.filter((name) => name !== asked?.since);
    },
  };
}

/** The newest point's is the first or the second; those after it were made by runs that came to nothing. */
function excess(names: readonly string[]): readonly string[] {
  return [...names].sort().slice(2, Math.max(2, names.length + 3 - bitmapsMax));
}

function requireTrusted(disk: QemuDisk, name: string): void {
  const bitmap = disk.bitmaps.find((candidate) => candidate.name === name);
  const lost = (why: string): ChangeTrackingLost => new ChangeTrackingLost(`disk ${disk.label}: ${why}`);
  if (bitmap === undefined && !disk.canPersist)
    throw lost(`QEMU was started anew, and an image in the format ${disk.format} keeps no bitmap meanwhile`);
  if (bitmap === undefined)
    throw lost(`its bitmap ${name} is gone: QEMU was killed, or another image or snapshot is in its place`);
  if (bitmap.inconsistent) throw lost(`its bitmap ${name} is inconsistent: QEMU did not end in order`);
  if (!bitmap.recording) throw lost(`its bitmap ${name} was switched off`);
  if (disk.hasSnapshots) throw lost('it has internal snapshots: going back to one is not recorded in its bitmaps');
}
