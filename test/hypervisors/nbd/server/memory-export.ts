import type {
  NbdExportHandler,
  NbdExportWrites,
  ServedExtent,
} from '../../../../hypervisors/nbd/server/nbd-export-handler.ts';

/** A disk in memory that remembers what was asked of it; blocks that nobody wrote, or that were zeroed, are holes. */
export class MemoryExport implements NbdExportHandler {
  readonly name: string;
  readonly description = 'a disk in memory';
  readonly preferredBlockBytes = 4096;
  readonly content: Buffer;
  readonly writes: NbdExportWrites;
  readonly asked: string[] = [];
  /** Awaited by each request before it is served. */
  gate: (what: string, signal: AbortSignal) => Promise<void> = async () => undefined;
  readonly #blockBytes = 4096;

  constructor(name: string, content: Buffer, options: { readonly zeroesAreFast?: boolean } = {}) {
    this.name = name;
    this.content = content;
    this.writes = this.#writes(options.zeroesAreFast === true);
  }

  get capacityBytes(): number {
    return this.content.length;
  }

  async read(offset: number, into: Uint8Array, signal: AbortSignal): Promise<void> {
    await this.#note(`read ${offset} ${into.length}`, signal);
    into.set(this.content.subarray(offset, offset + into.length));
  }

  async *extents(offset: number, length: number, signal: AbortSignal): AsyncGenerator<ServedExtent> {
    await this.#note(`extents ${offset} ${length}`, signal);
    const end = offset + length;
    for (let at = offset; at < end; ) {
      const next = Math.min(end, at - (at % this.#blockBytes) + this.#blockBytes);
      yield { offset: at, length: next - at, zero: this.content.subarray(at, next).every((byte) => byte === 0) };
      at = next;
    }
  }

  async #note(what: string, signal: AbortSignal): Promise<void> {
    this.asked.push(what);
    await this.gate(what, signal);
  }

  #writes(zeroesAreFast: boolean): NbdExportWrites {
    return {
      zeroesAreFast,
      write: async (offset, bytes, signal) => {
        await this.#note(`write ${offset} ${bytes.length}`, signal);
        this.content.set(bytes, offset);
      },
      writeZeroes: async (offset, length, { mayTrim }, signal) => {
        await this.#note(`zeroes ${offset} ${length}${mayTrim ? '' : ' allocated'}`, signal);
        this.content.fill(0, offset, offset + length);
      },
      trim: async (offset, length, signal) => {
        await this.#note(`trim ${offset} ${length}`, signal);
        this.content.fill(0, offset, offset + length);
      },
      flush: (signal) => this.#note('flush', signal),
    };
  }
}

/** The same, read-only. */
export function readOnly(disk: MemoryExport): NbdExportHandler {
  const { name, description, preferredBlockBytes, capacityBytes } = disk;
  return {
    ...{ name, description, preferredBlockBytes, capacityBytes },
    read: (offset, into, signal) => disk.read(offset, into, signal),
    extents: (offset, length, signal) => disk.extents(offset, length, signal),
  };
}
