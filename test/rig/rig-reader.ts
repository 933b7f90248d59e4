import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { KeyProvider } from '../../crypto/key-provider.ts';
import type { DiskState } from '../../replica/manifest.ts';
import type { OpenRepository } from '../../replica/open-repository.ts';
import { SegmentReader } from '../../replica/segment-reader.ts';
import { OpenReplica } from '../../restore/open-point.ts';
import { type RestoreProgress, restoreDisk } from '../../restore/restore-disk.ts';
import type { RestoreWorkers } from '../../restore/restore-workers.ts';
import { openRawSink } from '../../restore/sinks/raw-sink.ts';
import type { RestoreSink } from '../../restore/sinks/sink.ts';
import { MemorySink } from './memory-sink.ts';

const memoryFolder = '/dev/shm';
let contents = 0;

/** A replica that is open for reading, with all that a restore needs. */
export class RigReader implements Disposable {
  readonly replica: OpenReplica;
  readonly segments: SegmentReader;
  readonly #workers: RestoreWorkers;
  readonly #signal: AbortSignal;

  private constructor(replica: OpenReplica, segments: SegmentReader, workers: RestoreWorkers, signal: AbortSignal) {
    this.replica = replica;
    this.segments = segments;
    this.#workers = workers;
    this.#signal = signal;
  }

  static async open(
    repo: OpenRepository,
    machineId: Uint8Array,
    providers: readonly KeyProvider[],
    workers: RestoreWorkers,
    signal: AbortSignal,
  ): Promise<RigReader> {
    const replica = await OpenReplica.open(repo, machineId, providers, signal);
    return new RigReader(replica, new SegmentReader(repo, machineId, replica.keys), workers, signal);
  }

  /** The disk's whole content: in turns by way of the main thread, and of a file that the worker threads write. */
  async content(disk: DiskState): Promise<Uint8Array> {
    if (contents++ % 2 === 0) return await this.#contentByFile(disk);
    const sink = new MemorySink(disk.capacityBytes);
    await this.restoreInto(disk, sink);
    return sink.bytes;
  }

  async #contentByFile(disk: DiskState): Promise<Uint8Array> {
    const folder = await mkdtemp(join(existsSync(memoryFolder) ? memoryFolder : tmpdir(), 'failkit-content-'));
    try {
      const path = join(folder, 'disk');
      const { capacityBytes } = disk;
      await using sink = await openRawSink({ path, capacityBytes, force: false, contentName: 'x' });
      await this.restoreInto(disk, sink);
      return await readFile(path);
    } finally {
      await rm(folder, { recursive: true });
    }
  }

  async restoreInto(disk: DiskState, sink: RestoreSink): Promise<RestoreProgress> {
    const progress = { capacityBytes: 0, fetchedBytes: 0, writtenBytes: 0, keptBytes: 0 };
    const tools = { reader: this.segments, keys: this.replica.keys, workers: this.#workers, rangesInFlightMax: 4 };
    await restoreDisk(disk, sink, { ...tools, progress }, this.#signal);
    await sink.complete(this.#signal);
    return progress;
  }

  [Symbol.dispose](): void {
    this.segments[Symbol.dispose]();
    this.replica[Symbol.dispose]();
  }
}
