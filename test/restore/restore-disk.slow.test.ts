import { openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { KeyRefused } from '../../crypto/errors.ts';
import { rootFingerprint } from '../../crypto/root-fingerprint.ts';
import { BlockMap } from '../../replica/block-map.ts';
import { openRepository } from '../../replica/open-repository.ts';
import { SegmentReader } from '../../replica/segment-reader.ts';
import { fetchRange, RecordPlan, rangeBytesMax } from '../../restore/fetch-range.ts';
import { wholeRun } from '../../restore/open-range.ts';
import { OutputUnusable, openRawSink } from '../../restore/sinks/raw-sink.ts';
import type { DirectWrites, RestoreSink } from '../../restore/sinks/sink.ts';
import { ModelMachine } from '../fakes/model-machine.ts';
import { filled } from '../law/guest.ts';
import { ReplicaRig } from '../rig/replica-rig.ts';
import { RigWorkers } from '../rig/rig-workers.ts';
import { recordSyncs } from './recorded-syncs.ts';

const mebibyte = 2 ** 20;
const blockSize = 65_536;
/** The last block is cut off by the end of the disk. */
const capacityBytes = 20 * mebibyte + 1000;

let workers: RigWorkers;
beforeAll(() => {
  workers = new RigWorkers();
});
afterAll(() => workers[Symbol.asyncDispose]());

/**
 * A point of one disk in many segments, so that several ranges are under way; a quarter of it reads as zero, and of many records single
 * blocks were overwritten since, so that several runs of them are wanted.
 */
async function protectedDisk() {
  const rig = await ReplicaRig.create(undefined, { workers });
  const machine = new ModelMachine();
  const disk = machine.addDisk('system', capacityBytes);
  disk.write(0, filled(capacityBytes, 1, true));
  disk.discard(4 * mebibyte, 5 * mebibyte);
  await rig.protect(machine, { segmentBytes: mebibyte });
  for (let at = blockSize; at < 3 * mebibyte; at += 2 * blockSize) disk.write(at, filled(5000, at, true));
  const { point } = await rig.protect(machine, { segmentBytes: mebibyte });
  const expected = new Uint8Array(capacityBytes);
  disk.content.read(0, expected);
  const reader = await rig.open();
  const [state] = (await reader.replica.openPoint(point, rig.signal)).manifest.disks;
  if (state === undefined) throw new Error('no disk');
  const path = join(rig.folder, 'restored');
  const sink = await openRawSink({ path, capacityBytes, force: false, contentName: 'x' });
  const opened = new AsyncDisposableStack();
  opened.use(rig);
  opened.use(reader);
  opened.use(sink);
  const close = (): Promise<void> => opened.disposeAsync();
  return { rig, reader, disk: state, sink, path, expected, [Symbol.asyncDispose]: close };
}

describe('restoring into a file, by the threads that open', () => {
  it('gives the disk to the last byte, and counts what it wrote to the last byte', async () => {
    await using lab = await protectedDisk();
    expect(lab.sink.direct).not.toBeNull();
    const { writtenBytes } = await lab.reader.restoreInto(lab.disk, lab.sink);
    expect(Buffer.compare(readFileSync(lab.path), lab.expected)).toBe(0);
    expect(writtenBytes).toBe(capacityBytes - 5 * mebibyte);
    expect(writtenBytes % blockSize).toBe(1000);
  });

  it('says what the system has against the output', async () => {
    await using lab = await protectedDisk();
    const { direct } = lab.sink;
    if (direct === null) throw new Error('a file is written directly');
    const fd = openSync('/dev/full', 'w');
    const place: DirectWrites['place'] = async (offset, length) => [{ at: offset, length, fd, offset }];
    const full = { ...lab.sink, direct: { ...direct, place } };
    const outcome = await lab.reader.restoreInto(lab.disk, full).then(
      () => null,
      (error: Error & { code?: string }) => error,
    );
    expect(outcome?.code).toBe('OUTPUT_UNUSABLE');
    expect(outcome?.message).toMatch(/restored.*no space left/);
  });

  it('is durable before it has its name', async () => {
    await using lab = await protectedDisk();
    const named = await recordSyncs(lab.path, import.meta.filename, () => lab.reader.restoreInto(lab.disk, lab.sink));
    // The file before, its folder after.
    expect(named).toEqual([false, true]);
  });
});

describe('a restore whose output fails', () => {
  it('does not go on to clear the rest of it', async () => {
    await using lab = await protectedDisk();
    let reads = 0;
    const failing: RestoreSink = {
      ...{ description: 'an output', startsZeroed: false, mayHoldContent: false, direct: null },
      // The last ranges: by then what is left to clear has begun.
      write: (offset) =>
        offset < 19 * mebibyte ? Promise.resolve() : Promise.reject(new OutputUnusable('out of order')),
      read: async (_offset, _into, signal) => {
        reads++;
        // As long as a device takes.
        await sleep(5, undefined, { signal });
      },
      complete: () => Promise.resolve(),
      [Symbol.asyncDispose]: () => Promise.resolve(),
    };
    // A map of the same height covers twelve times as much.
    const disk = { ...lab.disk, capacityBytes: 250 * mebibyte };
    const outcome = lab.reader.restoreInto(disk, failing);
    await expect(outcome).rejects.toThrow(new OutputUnusable('out of order'));
    expect(reads).toBeLessThan(100);
  });
});

describe('a range whose key is refused', () => {
  class Refused extends SegmentReader {
    override async keysOf(): Promise<never> {
      throw new KeyRefused('not for this host');
    }
  }

  it('gives its buffer back: a verify meets thousands of them', async () => {
    await using lab = await protectedDisk();
    const { rig, disk, reader } = lab;
    const repo = await openRepository(rig.target, rootFingerprint(rig.root.publicKey), rig.signal);
    using segments = new Refused(repo, rig.machineId, reader.replica.keys);
    const plan = new RecordPlan();
    for await (const run of new BlockMap(disk, disk.root, reader.segments).runs(rig.signal))
      plan.add(run, [wholeRun(run)]);
    const [range] = plan.ranges(rangeBytesMax);
    if (range === undefined) throw new Error('nothing to fetch');
    const free = workers.restore.rangeBuffer(1);
    workers.restore.giveBack(free);
    const fetching = fetchRange(disk, range, { reader: segments, workers: workers.restore }, rig.signal);
    await expect(fetching).rejects.toThrow(KeyRefused);
    expect(workers.restore.rangeBuffer(1).buffer).toBe(free.buffer);
  });
});
