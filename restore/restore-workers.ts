import { Piscina } from 'piscina';
import { shareKey } from '../crypto/shared-key.ts';
import type { EpochKeys } from '../replica/key-ring.ts';
import { segmentPreambleBytes } from '../replica/segment.ts';
import { SharedSlots } from '../replica/shared-slots.ts';
import { rangeBytesMax, rangePlaintextMax } from './fetch-range.ts';
import {
  errorOf,
  type OpenedPiece,
  type OpenedRange,
  type OpenRangeTask,
  type OutputFile,
  type RecordFailure,
} from './open-range.ts';

/** The longest range, and the preamble that it may bring along. */
const rangeBufferBytes = rangeBytesMax + segmentPreambleBytes;

type RangeTask = Omit<OpenRangeTask, 'dataKey' | 'digestKey' | 'into'>;

/** Worker threads that open fetched ranges, with the keys on shared memory. */
export class RestoreWorkers implements AsyncDisposable {
  readonly #pool: Piscina;
  readonly #ranges = new SharedSlots(rangeBufferBytes);
  readonly #slots = new SharedSlots(rangePlaintextMax);
  /** By the keys themselves: two machines have different ones under one epoch number. */
  readonly #keys = new Map<EpochKeys, { readonly dataKey: Uint8Array; readonly digestKey: Uint8Array }>();

  constructor(threads: number) {
    const filename = new URL(`./restore-worker${import.meta.url.endsWith('.ts') ? '.ts' : '.js'}`, import.meta.url)
      .href;
    // A thread that idles for a moment ends otherwise, and starting the next one takes longer than most tasks.
    const forever = { minThreads: 1, maxThreads: threads, idleTimeout: Number.POSITIVE_INFINITY };
    this.#pool = new Piscina({ filename, ...forever, recordTiming: false });
  }

  /** Where a range is fetched to. `open`, `openInto` and `check` take it back; one whose fetch failed is left alone: bytes may still come. */
  rangeBuffer(length: number): Uint8Array {
    if (length > rangeBufferBytes) return new Uint8Array(new SharedArrayBuffer(length));
    return this.#ranges.take().subarray(0, length);
  }

  /** A range that nobody will open. */
  giveBack({ buffer }: Uint8Array): void {
    if (buffer.byteLength === rangeBufferBytes) this.#ranges.give(new Uint8Array(buffer));
  }

  /** `use` gets the wanted blocks, every one checked; their memory is used again when it has ended. Throws the first record's failure. */
  async open(
    keys: EpochKeys,
    task: RangeTask,
    signal: AbortSignal,
    use: (pieces: readonly OpenedPiece[]) => Promise<void>,
  ): Promise<void> {
    await this.openSome(keys, task, signal, async (pieces, failures) => {
      for (const failure of failures) throw errorOf(failure);
      await use(pieces);
    });
  }

  /** The same for whoever can go on without the records that fail: none of their blocks is among the pieces. */
  async openSome(
    keys: EpochKeys,
    task: RangeTask,
    signal: AbortSignal,
    use: (pieces: readonly OpenedPiece[], failures: readonly RecordFailure[]) => Promise<void>,
  ): Promise<void> {
    // One that meets an error is not given back: somebody may still be writing from it.
    const into = this.#slots.take();
    const { pieces, failures }: OpenedRange = await this.#run('openRangeTask', keys, { ...task, into }, signal);
    await use(pieces, failures);
    this.#slots.give(into);
  }

  /** Writes the wanted blocks, every one checked, and returns how many bytes. Throws the system's refusal, or the first record's failure. */
  async openInto(keys: EpochKeys, task: RangeTask, into: OutputFile, signal: AbortSignal): Promise<number> {
    const opened: OpenedRange = await this.#run('openRangeTask', keys, { ...task, into }, signal);
    const { failures, refusal, writtenBytes } = opened;
    if (refusal !== null) throw Object.assign(new Error(refusal.message), refusal);
    for (const failure of failures) throw errorOf(failure);
    return writtenBytes;
  }

  /** Opens and checks every record of the range; what fails is returned, not thrown. */
  async check(keys: EpochKeys, task: RangeTask, signal: AbortSignal): Promise<readonly RecordFailure[]> {
    return await this.#run('checkRangeTask', keys, task, signal);
  }

  async #run<T>(
    name: string,
    keys: EpochKeys,
    task: RangeTask & { readonly into?: OpenRangeTask['into'] },
    signal: AbortSignal,
  ): Promise<T> {
    signal.throwIfAborted();
    const result: T = await this.#pool.run({ ...task, ...this.#shared(keys) }, { name });
    this.giveBack(task.bytes);
    signal.throwIfAborted();
    return result;
  }

  #shared(keys: EpochKeys): { readonly dataKey: Uint8Array; readonly digestKey: Uint8Array } {
    const known = this.#keys.get(keys);
    if (known !== undefined) return known;
    const shared = { dataKey: shareKey(keys.key.bytes), digestKey: shareKey(keys.machineKeys.digestKey) };
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
