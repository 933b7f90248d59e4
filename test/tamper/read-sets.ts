import { rootFingerprint } from '../../crypto/root-fingerprint.ts';
import { openRepository } from '../../replica/open-repository.ts';
import { SegmentReader } from '../../replica/segment-reader.ts';
import { OpenReplica } from '../../restore/open-point.ts';
import { readAttachment } from '../../restore/restore-attachments.ts';
import { restoreDisk } from '../../restore/restore-disk.ts';
import type { RestoreWorkers } from '../../restore/restore-workers.ts';
import type { StorageTarget } from '../../storage-targets/storage-target.ts';
import { ComparingSink } from './comparing-sink.ts';
import type { Specimen } from './specimen.ts';

/** Which segments the restore of each point reads: after a change to another one it would do the same again. */

const never = new AbortController().signal;

export type ReadSets = ReadonlyMap<string, ReadonlySet<string>>;

export function readSetKey(machine: string, point: number): string {
  return `${machine} ${point}`;
}

export async function measureReadSets(specimen: Specimen, workers: RestoreWorkers): Promise<ReadSets> {
  const sets = new Map<string, ReadonlySet<string>>();
  const { rig, machines } = specimen;
  for (const machine of machines) {
    for (const [point, content] of machine.points) {
      const read = new Set<string>();
      const repo = await openRepository(noting(rig.target, read), rootFingerprint(rig.root.publicKey), never);
      using replica = await OpenReplica.open(repo, machine.id, [rig.provider], never);
      using reader = new SegmentReader(repo, machine.id, replica.keys);
      const { manifest } = await replica.openPoint(point, never);
      const progress = { capacityBytes: 0, fetchedBytes: 0, writtenBytes: 0, keptBytes: 0 };
      const tools = { reader, workers, rangesInFlightMax: 4, progress };
      for (const disk of manifest.disks)
        await restoreDisk(disk, new ComparingSink(content.disks.get(disk.label) ?? Buffer.alloc(0)), tools, never);
      for (const attachment of manifest.attachments) await readAttachment(attachment, reader, never);
      sets.set(readSetKey(machine.hex, point), read);
    }
  }
  return sets;
}

/** The same target, which notes the names that are read. */
function noting(target: StorageTarget, read: Set<string>): StorageTarget {
  return new Proxy(target, {
    get(inner, property) {
      const value: unknown = Reflect.get(inner, property, inner);
      if (typeof value !== 'function') return value;
      return (...args: unknown[]): unknown => {
        if (property === 'get') read.add(String(args[0]));
        return Reflect.apply(value, inner, args);
      };
    },
  });
}
