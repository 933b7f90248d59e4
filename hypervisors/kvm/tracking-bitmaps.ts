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
  /** Bitmaps of older snapshots that can be relied on, and their frozen copies. */
  readonly frozen: ReadonlyMap<string, string>;
  /** Everything was listed: whether a point was made from that, and which one is needed if not, a later snapshot will know. */
  listedAll(): void;
  /** The frozen copy of the bitmap that says what changed since; throws ChangeTrackingLost. */
  frozenSince(since: Uint8Array): string;
  /** Bitmaps of ours that nobody needs any more. */
  useless(): readonly string[];
}

/** A row of failed runs leaves one each, as long as none of them comes so far as to ask what changed. */
const bitmapsMax = 8;

export function trackDisk(disk: QemuDisk, marks: Marks, added: string): DiskTracking {
  const ours = disk.bitmaps.filter(({ name }) => marks.isReferencePoint(name));
  const reliable = ours.filter(({ inconsistent, recording, busy }) => !inconsistent && recording && !busy);
  const frozen = new Map(reliable.map(({ name }, index) => [name, marks.frozenBitmap(index)]));
  let asked: 'nothing' | 'everything' | { readonly since: string } = 'nothing';
  return {
    added,
    frozen,
    listedAll() {
      if (asked === 'nothing') asked = 'everything';
    },
    frozenSince(since) {
      const name = new TextDecoder().decode(since);
      asked = { since: name };
      requireTrusted(disk, name);
      const copy = frozen.get(name);
      if (copy === undefined) throw new ChangeTrackingLost(`the bitmap ${name} of disk ${disk.label} is in use`);
      return copy;
    },
    useless() {
      if (asked === 'nothing') return [added];
      const names = ours.map(({ name }) => name);
      if (asked === 'everything') return excess(names);
      const { since } = asked;
      return names.filter((name) => name !== since);
    },
  };
}

/** The oldest is most likely the newest point's; those after it were made by runs that came to nothing. */
function excess(names: readonly string[]): readonly string[] {
  return [...names].sort().slice(1, Math.max(1, names.length + 2 - bitmapsMax));
}

function requireTrusted(disk: QemuDisk, name: string): void {
  const bitmap = disk.bitmaps.find((candidate) => candidate.name === name);
  const lost = (why: string): ChangeTrackingLost => new ChangeTrackingLost(`disk ${disk.label}: ${why}`);
  if (bitmap === undefined && !disk.canPersist)
    throw lost(`QEMU was started anew, and an image in the format ${disk.format} keeps no bitmap meanwhile`);
  if (bitmap === undefined)
    throw lost(
      `its bitmap ${name} is gone: another disk or snapshot is in its place, or the image was copied or converted`,
    );
  if (bitmap.inconsistent) throw lost(`its bitmap ${name} is inconsistent: QEMU did not end in order`);
  if (!bitmap.recording) throw lost(`its bitmap ${name} was switched off`);
  if (disk.hasSnapshots) throw lost('it has internal snapshots: going back to one is not recorded in its bitmaps');
}
