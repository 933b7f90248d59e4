import type { BlockSource, Extent } from '../hypervisor.ts';
import type { NbdExportHandler } from '../nbd/server/nbd-export-handler.ts';
import { SnapshotLost } from './kvm-errors.ts';
import type { Marks } from './marks.ts';
import { heldBytesMax, PushedExtents } from './pushed-extents.ts';
import type { QemuDisk } from './qemu-disks.ts';
import type { QmpClient } from './qmp-client.ts';
import type { TakenDisk } from './taken-disk.ts';
import type { DiskTracking } from './tracking-bitmaps.ts';

/**
 * A frozen disk that QEMU pushes to us: it is the client, and we are the NBD server. What comes in order is what changed; anything else is
 * asked for part by part, by a job of its own.
 */

const alignBytes = 64 * 1024;
const partBytesMax = 4 * 1024 * 1024;
/** A seed over a slow link takes days. */
const jobTimeoutMs = 2 ** 31 - 1;

interface Part {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

export class PushedDisk {
  readonly #qmp: QmpClient;
  readonly #marks: Marks;
  readonly #index: number;
  readonly #disk: QemuDisk;
  readonly #tracking: DiskTracking;
  /** Where that goes which no part was asked for; from the beginning of its own job on. */
  #stream: PushedExtents | null = null;
  /** Bitmaps that the frozen disk has by now. */
  readonly #placed = new Set<string>();
  #part: Part | null = null;
  #jobs = 0;
  /** Jobs follow each other: QEMU's graph is not changed while one runs. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(qmp: QmpClient, marks: Marks, { index, disk, tracking }: TakenDisk) {
    this.#qmp = qmp;
    this.#marks = marks;
    this.#index = index;
    this.#disk = disk;
    this.#tracking = tracking;
  }

  get source(): BlockSource {
    return {
      label: this.#disk.label,
      capacityBytes: this.#disk.capacityBytes,
      referencePoint: new TextEncoder().encode(this.#tracking.added),
      changedExtents: (since, signal) => this.#changedExtents(since, signal),
      read: (offset, into, signal) => this.#read(offset, into, signal),
      direct: null,
      changesOnly: false,
    };
  }

  /** What QEMU sees of it. */
  get handler(): NbdExportHandler {
    return {
      name: this.#marks.exportName(this.#index),
      capacityBytes: this.#disk.capacityBytes,
      preferredBlockBytes: alignBytes,
      read: async (_offset, into) => {
        into.fill(0);
      },
      writes: {
        write: (offset, bytes, signal) => this.#take(offset, bytes, signal),
        writeZeroes: async (offset, length) => this.#takeZeroes(offset, length),
        // It would say that something changed, and not to what: QEMU writes zeroes instead.
        trim: async () => {
          throw new SnapshotLost(`QEMU discarded a part of disk ${this.#disk.label} instead of pushing it`);
        },
        flush: async () => undefined,
        zeroesAreFast: true,
      },
    };
  }

  /** Throws SnapshotLost unless the snapshot of this disk has held until now. */
  async probe(signal: AbortSignal): Promise<void> {
    const length = Math.min(alignBytes, this.#disk.capacityBytes);
    if (length > 0) await this.#inTurn(() => this.#fetchPart(0, length, signal));
  }

  async *#changedExtents(since: Uint8Array | null, signal: AbortSignal): AsyncGenerator<Extent> {
    signal.throwIfAborted();
    const range = since === null ? { sync: 'full' } : await this.#bitmapRange(since, signal);
    const pushed = new PushedExtents();
    const job = { device: this.#marks.frozenDisk(this.#index), target: this.#marks.server(this.#index), ...range };
    const ended = this.#inTurn(() => {
      this.#stream = pushed;
      return this.#push(job, signal);
    });
    ended.then(
      () => pushed.finish(),
      () => pushed.finish(),
    );
    try {
      let next = 0;
      for (let extent = await pushed.nextExtent(signal); extent !== null; extent = await pushed.nextExtent(signal)) {
        if (since === null && extent.offset !== next)
          throw new SnapshotLost(`QEMU left out disk ${this.#disk.label} from ${next} to ${extent.offset}`);
        next = extent.offset + extent.length;
        yield extent;
      }
      await ended;
      if (since === null && next !== this.#disk.capacityBytes)
        throw new SnapshotLost(`QEMU pushed ${next} of ${this.#disk.capacityBytes} bytes of disk ${this.#disk.label}`);
    } finally {
      pushed.stopWaiting();
      ended.catch(() => undefined);
    }
  }

  /** The bitmap moves to the frozen disk, where the job finds it. It is used as it is, and not cleared. */
  async #bitmapRange(since: Uint8Array, signal: AbortSignal): Promise<Readonly<Record<string, unknown>>> {
    const name = this.#tracking.frozenSince(since);
    const node = this.#marks.frozenDisk(this.#index);
    if (!this.#placed.has(name)) {
      await this.#qmp.run('block-dirty-bitmap-add', { node, name, granularity: alignBytes, disabled: true }, signal);
      const bitmaps = [{ node: this.#disk.node, name }];
      await this.#qmp.run('block-dirty-bitmap-merge', { node, target: name, bitmaps }, signal);
      this.#placed.add(name);
    }
    return { sync: 'bitmap', bitmap: name, 'bitmap-mode': 'never' };
  }

  async #push(job: Readonly<Record<string, unknown>>, signal: AbortSignal): Promise<void> {
    // Each has its own name, or what is told of one that nobody waited for would be taken for the next one's.
    const id = this.#marks.pushJob(this.#index, ++this.#jobs);
    // One after the other: what comes is then in order.
    await this.#qmp.run('blockdev-backup', { 'job-id': id, ...job, 'x-perf': { 'max-workers': 1 } }, signal);
    const over = ({ event, data }: { event: string; data: Readonly<Record<string, unknown>> }): boolean =>
      (event === 'BLOCK_JOB_COMPLETED' || event === 'BLOCK_JOB_CANCELLED') && data.device === id;
    const { event, data } = await this.#qmp.next(over, signal, jobTimeoutMs);
    if (event === 'BLOCK_JOB_CANCELLED' || data.error !== undefined)
      throw new SnapshotLost(
        `QEMU could not push disk ${this.#disk.label}: ${String(data.error ?? 'its job was cancelled')}`,
      );
  }

  async #read(offset: number, into: Uint8Array, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const missing = this.#stream?.read(offset, into) ?? [{ offset, length: into.length }];
    for (const range of missing) {
      const start = range.offset - offset;
      await this.#fetch(range.offset, into.subarray(start, start + range.length), signal);
    }
  }

  async #fetch(offset: number, into: Uint8Array, signal: AbortSignal): Promise<void> {
    const end = offset + into.length;
    // Whoever waits for this part does not read what else is pushed meanwhile.
    this.#stream?.stopWaiting();
    for (let at = offset - (offset % alignBytes); at < end; at += partBytesMax) {
      const length = Math.min(
        partBytesMax,
        Math.ceil((end - at) / alignBytes) * alignBytes,
        this.#disk.capacityBytes - at,
      );
      const bytes = await this.#inTurn(() => this.#fetchPart(at, length, signal));
      const from = Math.max(at, offset);
      const to = Math.min(at + length, end);
      into.set(bytes.subarray(from - at, to - at), from - offset);
    }
  }

  async #fetchPart(offset: number, length: number, signal: AbortSignal): Promise<Uint8Array> {
    signal.throwIfAborted();
    const bytes = new Uint8Array(length);
    const [device, target] = [this.#marks.part(this.#index), this.#marks.serverPart(this.#index)];
    const window = { driver: 'raw', offset, size: length };
    const never = new AbortController().signal;
    this.#part = { offset, bytes };
    try {
      const file = this.#marks.frozenDisk(this.#index);
      await this.#qmp.run('blockdev-add', { ...window, 'node-name': device, file }, never);
      await this.#qmp.run(
        'blockdev-add',
        { ...window, 'node-name': target, file: this.#marks.server(this.#index) },
        never,
      );
      await this.#push({ device, target, sync: 'full' }, signal);
      return bytes;
    } finally {
      this.#part = null;
      if (this.#qmp.lost === null && !signal.aborted)
        for (const node of [target, device]) await this.#qmp.run('blockdev-del', { 'node-name': node }, never);
    }
  }

  async #take(offset: number, bytes: Uint8Array, signal: AbortSignal): Promise<void> {
    if (this.#part !== null) this.#part.bytes.set(bytes, offset - this.#part.offset);
    else if (this.#stream !== null)
      for (let at = 0; at < bytes.length; at += heldBytesMax)
        await this.#stream.take(offset + at, bytes.subarray(at, at + heldBytesMax), signal);
  }

  #takeZeroes(offset: number, length: number): void {
    if (this.#part === null) this.#stream?.takeZeroes(offset, length);
    else this.#part.bytes.fill(0, offset - this.#part.offset, offset - this.#part.offset + length);
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const mine = this.#turn.then(work, work);
    this.#turn = mine.catch(() => undefined);
    return mine;
  }
}
