import type { BlockSource, SnapshotOptions } from '../../hypervisor.ts';
import { type Checkpoint, listCheckpoints, removeCheckpoint } from './checkpoints.ts';
import { checkpointOf } from './disk-tracking.ts';
import type { LibvirtSite } from './libvirt-site.ts';

/** Which checkpoints of ours are still needed. The older one goes only when a later snapshot was asked by a newer one. */

/** A row of runs that were killed leaves one each. */
const checkpointsMax = 8;

/** Removes checkpoints of ours that the newest point does not need, where it is known which it needs. */
export async function tidyCheckpoints(
  { virsh, domain: { uuid }, marks }: LibvirtSite,
  { since }: SnapshotOptions,
  signal: AbortSignal,
): Promise<readonly Checkpoint[]> {
  const found = await listCheckpoints(virsh, uuid, marks, signal);
  // A run that reads everything asks by none: until it is published, the newest point needs its own.
  const needed = since === undefined || since.size === 0 ? null : new Set([...since.values()].map(checkpointOf));
  const useless = found.filter(({ name }, i) =>
    needed === null ? i > 0 && i < found.length + 2 - checkpointsMax : !needed.has(name),
  );
  for (const { name } of useless) await removeCheckpoint(virsh, uuid, name, signal);
  return found.filter((checkpoint) => !useless.includes(checkpoint));
}

/** Which checkpoints a run made useless, found out by what it asked. */
export class CheckpointKeeper {
  readonly #site: LibvirtSite;
  readonly #older: readonly Checkpoint[];
  readonly #needed = new Set<string | null>();

  constructor(site: LibvirtSite, older: readonly Checkpoint[], added: string) {
    this.#site = site;
    this.#older = older;
    this.#needed.add(added);
  }

  noting(source: BlockSource): BlockSource {
    return {
      ...source,
      changedExtents: (since, signal) => {
        if (since !== null) this.#needed.add(checkpointOf(since));
        return source.changedExtents(since, signal);
      },
    };
  }

  async leave(): Promise<void> {
    if (this.#needed.size === 1) return;
    const { virsh, domain } = this.#site;
    for (const { name } of this.#older)
      if (!this.#needed.has(name)) await removeCheckpoint(virsh, domain.uuid, name, new AbortController().signal);
  }
}
