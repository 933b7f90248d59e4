import { createHash, randomBytes } from 'node:crypto';
import { segmentsInFlightMax, workersOf } from '../../agent/memory-budget.ts';
import { PipelineWorkers } from '../../agent/protect/pipeline-workers.ts';
import { connectSource, openTarget } from '../../agent/wire.ts';
import { HypervHosts } from '../../hypervisors/hyperv/hyperv-hosts.ts';
import type { BlockSource, Extent, MachineSnapshot } from '../../hypervisors/hypervisor.ts';
import { inParallel } from '../../replica/in-parallel.ts';
import { RestoreWorkers } from '../../restore/restore-workers.ts';
import { Bandwidth } from '../../storage-targets/bandwidth.ts';
import { openFilesystemTarget } from '../../storage-targets/filesystem.ts';
import type { StorageTarget } from '../../storage-targets/storage-target.ts';
import { ReplicaRig } from '../../test/rig/replica-rig.ts';
import { MemoryDisk } from './memory-disk.ts';
import { type StageContext, type StageTimes, timeStage } from './stage.ts';

/** What a seed is made of, each part alone: reading the source; digest, compress and seal; putting segments. */

/** As the pipeline asks for it: pieces of this size, two stretches for each worker under way. */
const pieceBytes = 2 * 2 ** 20;
const readsPerWorker = 2;

/** Every byte of data, by the source's own read path, into buffers that go round. */
export async function readSource(context: StageContext): Promise<StageTimes> {
  await using snapshot = await openSnapshot(context);
  const source = diskOf(snapshot);
  return await timeStage(null, async () => {
    const extents: Extent[] = [];
    for await (const extent of source.changedExtents(null, context.signal)) extents.push(extent);
    const pieces = extents.filter(({ zero }) => !zero).flatMap((extent) => [...piecesOf(extent)]);
    const readersMax = workersOf(context.config) * readsPerWorker;
    const free = Array.from({ length: readersMax }, () => new Uint8Array(new SharedArrayBuffer(pieceBytes)));
    await inParallel(pieces, readersMax, context.signal, async ({ offset, length }, signal) => {
      const into = free.pop() ?? new Uint8Array(new SharedArrayBuffer(pieceBytes));
      await source.read(offset, into.subarray(0, length), signal);
      free.push(into);
    });
    return { bytes: pieces.reduce((sum, { length }) => sum + length, 0) };
  });
}

export function* piecesOf({ offset, length }: Pick<Extent, 'offset' | 'length'>) {
  for (let at = offset; at < offset + length; ) {
    // Aligned, so that no piece crosses what is aligned to more.
    const end = Math.min(offset + length, at - (at % pieceBytes) + pieceBytes);
    yield { offset: at, length: end - at };
    at = end;
  }
}

async function openSnapshot({ config, machine, signal }: StageContext): Promise<MachineSnapshot> {
  const connection = connectSource(config, machine, new Bandwidth(null), new HypervHosts());
  const { quiesce, whenChanging } = machine;
  return await connection.snapshot({ name: machine.name }, { quiesce, whenChanging }, signal);
}

function diskOf({ disks }: MachineSnapshot): BlockSource {
  const [disk] = disks;
  if (disk === undefined || disks.length > 1) throw new Error('the benchmark is for machines with one disk');
  return disk;
}

/** A whole run by the real pipeline, from a disk in memory to a store that keeps no segment. */
export async function makeSegments(context: StageContext): Promise<StageTimes> {
  const { config, folder, signal } = context;
  const disk = await loadDisk(context);
  await using pipeline = new PipelineWorkers(workersOf(config));
  await using restore = new RestoreWorkers(1);
  await using inner = await openFilesystemTarget({ directory: folder });
  const workers = { pipeline, restore, [Symbol.asyncDispose]: async () => undefined };
  await using rig = await ReplicaRig.create(withoutSegments(inner), { workers, inMemory: true });
  const options = {
    segmentBytes: config.segmentBytes,
    compression: config.compression.level,
    workers: workersOf(config),
    segmentsInFlightMax: segmentsInFlightMax(config),
  };
  return await timeStage(null, async () => {
    await rig.protect(disk.connect('disk'), { ...options, signal });
    return { bytes: disk.dataBytes, ownCpuMs: disk.copyCpuMs };
  });
}

export async function loadDisk(context: StageContext): Promise<MemoryDisk> {
  await using snapshot = await openSnapshot(context);
  return await MemoryDisk.load(diskOf(snapshot), context.signal);
}

/** A seed reads nothing back of what it stored, so nobody misses it. */
function withoutSegments(target: StorageTarget): StorageTarget {
  return {
    ...target,
    putIfAbsent: async (name, bytes, options, signal) =>
      name.includes('/segments/') ? undefined : await target.putIfAbsent(name, bytes, options, signal),
  };
}

/** As many objects as the seed stored, of the same sizes, each ready with its checksum. */
export async function putObjects(context: StageContext): Promise<StageTimes> {
  const { config, segmentSizes } = context;
  const { target } = await openTarget(config);
  await using _ = target;
  const content = randomBytes(Math.max(...segmentSizes));
  const objects = segmentSizes.map((size, i) => {
    const bytes = content.subarray(0, size);
    return { name: `plain/${i}`, bytes, sha256: sha256Of(bytes) };
  });
  return await timeStage(context.serverPid, async () => {
    await inParallel(objects, segmentsInFlightMax(config), context.signal, ({ name, bytes, sha256 }, signal) =>
      target.putIfAbsent(name, bytes, { sha256 }, signal),
    );
    return { bytes: segmentSizes.reduce((sum, size) => sum + size, 0) };
  });
}

function sha256Of(bytes: Uint8Array): Uint8Array {
  return createHash('sha256').update(bytes).digest();
}
