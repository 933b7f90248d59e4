import type { ByteRange, StorageTarget } from '../../storage-targets/storage-target.ts';

/** Objects that are in memory already, in front of the store that they came from. Costs one copy a get, which is counted. */
export class MemoryStore {
  readonly target: StorageTarget;
  readonly #store: StorageTarget;
  readonly #objects = new Map<string, Uint8Array>();
  #copyMicroseconds = 0;

  constructor(store: StorageTarget) {
    this.#store = store;
    this.target = { ...store, get: (name, range, signal) => this.#get(name, range, signal) };
  }

  async load(name: string, signal: AbortSignal): Promise<void> {
    this.#objects.set(name, await this.#store.get(name, null, signal));
  }

  /** CPU time that the copies took so far. */
  get copyCpuMs(): number {
    return this.#copyMicroseconds / 1000;
  }

  /** Whoever gets bytes may hand their buffer on to a worker. */
  async #get(name: string, range: ByteRange | null, signal: AbortSignal): Promise<Uint8Array> {
    const object = this.#objects.get(name);
    if (object === undefined) return await this.#store.get(name, range, signal);
    const before = process.threadCpuUsage();
    const { offset, length } = range ?? { offset: 0, length: object.length };
    const bytes = object.slice(offset, offset + length);
    const { user, system } = process.threadCpuUsage(before);
    this.#copyMicroseconds += user + system;
    return bytes;
  }
}
