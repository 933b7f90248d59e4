import { join } from 'node:path';
import { rangesInFlightMax, workersOf } from '../../agent/memory-budget.ts';
import { openKeyProvider } from '../../agent/open-keys.ts';
import { MachineState } from '../../agent/state/machine-state.ts';
import { openPinnedRepository, openTarget } from '../../agent/wire.ts';
import { inParallel } from '../../replica/in-parallel.ts';
import { openRepository } from '../../replica/open-repository.ts';
import { SegmentReader } from '../../replica/segment-reader.ts';
import { rangeBytesMax } from '../../restore/fetch-range.ts';
import { OpenReplica } from '../../restore/open-point.ts';
import { restoreDisk } from '../../restore/restore-disk.ts';
import { RestoreWorkers } from '../../restore/restore-workers.ts';
import { openRawSink } from '../../restore/sinks/raw-sink.ts';
import type { RestoreSink } from '../../restore/sinks/sink.ts';
import type { StorageTarget } from '../../storage-targets/storage-target.ts';
import { MemoryStore } from './memory-store.ts';
import { loadDisk, piecesOf } from './seed-stages.ts';
import { type StageContext, type StageTimes, timeStage } from './stage.ts';

/** What a restore is made of, each part alone: getting ranges; open, decompress and check; writing the disk. */

/** All that is stored of the segments, in ranges as a restore asks for them. */
export async function getRanges(context: StageContext): Promise<StageTimes> {
  const { config, signal } = context;
  const { target } = await openTarget(config);
  await using _ = target;
  const ranges: { readonly name: string; readonly offset: number; readonly length: number }[] = [];
  for await (const { name, bytes } of segmentsOf(target, signal))
    for (let offset = 0; offset < bytes; offset += rangeBytesMax)
      ranges.push({ name, offset, length: Math.min(rangeBytesMax, bytes - offset) });
  return await timeStage(context.serverPid, async () => {
    await inParallel(ranges, rangesInFlightMax(config), signal, ({ name, ...range }, either) =>
      target.get(name, range, either),
    );
    return { bytes: ranges.reduce((sum, { length }) => sum + length, 0) };
  });
}

export async function* segmentsOf(target: StorageTarget, signal: AbortSignal) {
  for await (const found of target.list('machines/', {}, signal)) if (found.name.includes('/segments/')) yield found;
}

/** A whole restore by the real code, from segments in memory to a disk that forgets what is written. */
export async function openRecords(context: StageContext): Promise<StageTimes> {
  const { config, machine, signal } = context;
  const { target } = await openTarget(config);
  await using _ = target;
  const store = new MemoryStore(target);
  for await (const { name } of segmentsOf(target, signal)) await store.load(name, signal);
  using keys = await openKeyProvider(config.keys);
  const machineId = machineIdOf(context);
  const repo = await openPinnedRepository(config, store.target, openRepository, signal);
  using replica = await OpenReplica.open(repo, machineId, [keys.provider], signal);
  const { manifest } = await replica.openPoint(replica.points.at(-1) ?? 0, signal);
  const [disk] = manifest.disks;
  if (disk === undefined) throw new Error(`the newest point of ${machine.name} has no disk`);
  using reader = new SegmentReader(repo, machineId, replica.keys);
  await using workers = new RestoreWorkers(workersOf(config));
  const progress = { capacityBytes: 0, fetchedBytes: 0, writtenBytes: 0, keptBytes: 0 };
  const tools = { reader, keys: replica.keys, workers, rangesInFlightMax: rangesInFlightMax(config), progress };
  const before = store.copyCpuMs;
  return await timeStage(null, async () => {
    await restoreDisk(disk, forgetfulSink, tools, signal);
    return { bytes: progress.writtenBytes, ownCpuMs: store.copyCpuMs - before };
  });
}

function machineIdOf({ config, machine }: StageContext): Uint8Array {
  using state = new MachineState(config.state, machine.name);
  if (state.machineId === null) throw new Error(`${machine.name} was never seeded`);
  return state.machineId;
}

const forgetfulSink: RestoreSink = {
  description: 'nowhere',
  startsZeroed: true,
  mayHoldContent: false,
  write: async () => undefined,
  read: () => Promise.reject(new Error('nothing is kept here')),
  direct: null,
  complete: async () => undefined,
  [Symbol.asyncDispose]: async () => undefined,
};

/** The disk's data, from memory into a new file. */
export async function writeDisk(context: StageContext): Promise<StageTimes> {
  const disk = await loadDisk(context);
  const { capacityBytes } = disk;
  const path = join(context.folder, 'disk.raw');
  await using sink = await openRawSink({ path, capacityBytes, force: false, contentName: 'benchmark' });
  const pieces = disk.dataExtents.flatMap((extent) => [...piecesOf(extent)]);
  return await timeStage(null, async () => {
    await inParallel(pieces, rangesInFlightMax(context.config), context.signal, ({ offset, length }, signal) =>
      sink.write(offset, disk.view(offset, length), signal),
    );
    await sink.complete(context.signal);
    return { bytes: disk.dataBytes };
  });
}
