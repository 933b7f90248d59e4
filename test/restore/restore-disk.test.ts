import { openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openRawSink } from '../../restore/sinks/raw-sink.ts';
import { ModelMachine } from '../fakes/model-machine.ts';
import { filled } from '../law/guest.ts';
import { ReplicaRig } from '../rig/replica-rig.ts';
import { RigWorkers } from '../rig/rig-workers.ts';

const mebibyte = 2 ** 20;
const blockSize = 65_536;
/** The last block is cut off by the end of the disk. */
const capacityBytes = 20 * mebibyte + 1000;

let workers: RigWorkers;
beforeAll(() => {
  workers = new RigWorkers();
});
afterAll(() => workers[Symbol.asyncDispose]());

/** A point of one disk in many segments, so that several ranges are under way; a quarter of it reads as zero. */
async function protectedDisk() {
  const rig = await ReplicaRig.create(undefined, { workers });
  const machine = new ModelMachine();
  const disk = machine.addDisk('system', capacityBytes);
  disk.write(0, filled(capacityBytes, 1, true));
  disk.discard(4 * mebibyte, 5 * mebibyte);
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
  return { reader, disk: state, sink, path, expected, [Symbol.asyncDispose]: close };
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
    const full = { ...lab.sink, direct: { ...direct, fd: openSync('/dev/full', 'w') } };
    const outcome = await lab.reader.restoreInto(lab.disk, full).then(
      () => null,
      (error: Error & { code?: string }) => error,
    );
    expect(outcome?.code).toBe('OUTPUT_UNUSABLE');
    expect(outcome?.message).toMatch(/restored.*no space left/);
  });
});
