import { ReplicaNotFound } from '../../replica/chain.ts';
import type { DiskState } from '../../replica/manifest.ts';
import type { OpenPoint } from '../../restore/open-point.ts';

/** Which disks of a point are meant: all, or the one with that label. Throws ReplicaNotFound. */
export function chooseDisks({ manifest, point }: OpenPoint, label: string | undefined): readonly DiskState[] {
  if (label === undefined) return manifest.disks;
  const disk = manifest.disks.find((candidate) => candidate.label === label);
  if (disk !== undefined) return [disk];
  throw new ReplicaNotFound(
    `point ${point} has no disk ${label}; it has ${manifest.disks.map((candidate) => candidate.label).join(', ')}`,
  );
}
