import type { BlockSource, Extent, HypervisorConnection, MachineSnapshot } from '../../hypervisors/hypervisor.ts';

/** A disk that is in memory already, so that what reads it waits for nothing. Costs one copy a read, which is counted. */

const chunkBytes = 64 * 2 ** 20;

export class MemoryDisk {
  readonly capacityBytes: number;
  readonly extents: readonly Extent[];
  readonly #chunks = new Map<number, Uint8Array>();
  #copyMicroseconds = 0;

  private constructor(capacityBytes: number, extents: readonly Extent[]) {
    this.capacityBytes = capacityBytes;
    this.extents = extents;
  }

  static async load(source: BlockSource, signal: AbortSignal): Promise<MemoryDisk> {
    const extents: Extent[] = [];
    for await (const extent of source.changedExtents(null, signal)) extents.push(extent);
    const disk = new MemoryDisk(source.capacityBytes, extents);
    for (const { offset, length } of disk.dataExtents)
      for (const { chunk, from, to } of partsOf(offset, length)) {
        const bytes = disk.#chunks.get(chunk) ?? new Uint8Array(chunkBytes);
        disk.#chunks.set(chunk, bytes);
        await source.read(chunk * chunkBytes + from, bytes.subarray(from, to), signal);
      }
    return disk;
  }

  get dataExtents(): readonly Extent[] {
    return this.extents.filter(({ zero }) => !zero);
  }

  get dataBytes(): number {
    return this.dataExtents.reduce((sum, { length }) => sum + length, 0);
  }

  /** CPU time that reading took so far. */
  get copyCpuMs(): number {
    return this.#copyMicroseconds / 1000;
  }

  read(offset: number, into: Uint8Array): void {
    const before = process.threadCpuUsage();
    for (const { chunk, from, to, at } of partsOf(offset, into.length))
      into.set(this.view(chunk * chunkBytes + from, to - from), at);
    const { user, system } = process.threadCpuUsage(before);
    this.#copyMicroseconds += user + system;
  }

  /** Not a copy; inside one chunk, and of data. */
  view(offset: number, length: number): Uint8Array {
    const chunk = this.#chunks.get(Math.floor(offset / chunkBytes));
    if (chunk === undefined) throw new Error(`nothing was read at ${offset}`);
    const from = offset % chunkBytes;
    return chunk.subarray(from, from + length);
  }

  /** A machine with this disk. */
  connect(label: string): HypervisorConnection {
    const { capacityBytes, extents } = this;
    const source: BlockSource = {
      ...{ label, capacityBytes, referencePoint: null },
      async *changedExtents() {
        yield* extents;
      },
      read: async (offset, into) => this.read(offset, into),
      direct: null,
      changesOnly: false,
    };
    const snapshot: MachineSnapshot = {
      ...{ takenAt: new Date(), disks: [source], excluded: [], attachments: [], frozenMs: null },
      settleConsistency: async () => 'crash-consistent',
      [Symbol.asyncDispose]: async () => undefined,
    };
    return {
      async *listMachines() {
        yield { name: 'machine', disks: [{ label, capacityBytes }] };
      },
      snapshot: async () => snapshot,
      [Symbol.asyncDispose]: async () => undefined,
    };
  }
}

/** The parts of a byte run by the chunks that hold them; `at`: where each begins in the run. */
function* partsOf(offset: number, length: number) {
  for (let at = 0; at < length; ) {
    const from = (offset + at) % chunkBytes;
    const to = Math.min(chunkBytes, from + length - at);
    yield { chunk: Math.floor((offset + at) / chunkBytes), from, to, at };
    at += to - from;
  }
}
