import { Piscina } from 'piscina';
import type { EpochKeys } from '../replica/key-ring.ts';
import type { OpenedPiece, OpenRangeTask } from './open-range.ts';

/** Worker threads that open fetched ranges, with the keys on shared memory. */
export class RestoreWorkers implements AsyncDisposable {
  readonly #pool: Piscina;
  /** By the keys themselves: two machines have different ones under one epoch number. */
  readonly #keys = new Map<EpochKeys, { readonly dataKey: Uint8Array; readonly digestKey: Uint8Array }>();

  constructor(threads: number) {
    const filename = new URL(`./restore-worker${import.meta.url.endsWith('.ts') ? '.ts' : '.js'}`, import.meta.url)
      .href;
    this.#pool = new Piscina({ filename, minThreads: 1, maxThreads: threads, recordTiming: false });
  }

  async open(
    keys: EpochKeys,
    task: Omit<OpenRangeTask, 'dataKey' | 'digestKey'>,
    signal: AbortSignal,
  ): Promise<readonly OpenedPiece[]> {
    signal.throwIfAborted();
    const opened: readonly OpenedPiece[] = await this.#pool.run({ ...task, ...this.#shared(keys) });
    signal.throwIfAborted();
    return opened;
  }

  #shared(keys: EpochKeys): { readonly dataKey: Uint8Array; readonly digestKey: Uint8Array } {
    const known = this.#keys.get(keys);
    if (known !== undefined) return known;
    const shared = { dataKey: share(keys.key.bytes), digestKey: share(keys.machineKeys.digestKey) };
    this.#keys.set(keys, shared);
    return shared;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#pool.destroy();
    for (const { dataKey, digestKey } of this.#keys.values()) {
      dataKey.fill(0);
      digestKey.fill(0);
    }
  }
}

function share(key: Uint8Array): Uint8Array {
  const shared = new Uint8Array(new SharedArrayBuffer(key.length));
  shared.set(key);
  return shared;
}
