import type { BlockSource } from '../hypervisor.ts';
import { ScratchFull, SnapshotLost } from './kvm-errors.ts';
import type { Marks } from './marks.ts';
import type { PushedDisk } from './pushed-disk.ts';
import type { QmpClient, QmpEvent } from './qmp-client.ts';
import { cancelJobs, listJobs, removeExports } from './remove-marks.ts';

/** Whether what is read is still the snapshot. Once it is not, nobody may go on reading. */
export class SnapshotHealth implements Disposable {
  readonly #qmp: QmpClient;
  readonly #marks: Marks;
  readonly #jobs: readonly string[];
  readonly #pushed: readonly Pick<PushedDisk, 'probe'>[];
  readonly #listening: Disposable;
  #failure: Error | null = null;

  /** `jobs`: those that keep old contents. `pushed`: disks where a filter does. */
  constructor(qmp: QmpClient, marks: Marks, jobs: readonly string[], pushed: readonly Pick<PushedDisk, 'probe'>[]) {
    this.#qmp = qmp;
    this.#marks = marks;
    this.#jobs = jobs;
    this.#pushed = pushed;
    this.#listening = qmp.listen((event) => this.#hear(event));
  }

  /** Ends the snapshot, and lets a guest go on that QEMU stopped because a write found no room. */
  giveUp(failure: ScratchFull | SnapshotLost): void {
    if (this.#failure !== null) return;
    this.#failure = failure;
    this.#end().catch(() => undefined);
  }

  /** Throws what ended the snapshot. When it returns, everything that was read before is what the disks held. */
  async check(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (this.#failure !== null) throw this.#failure;
    const jobs = await listJobs(this.#qmp, signal);
    if (this.#failure !== null) throw this.#failure;
    if (!this.#jobs.every((job) => jobs.includes(job)))
      this.giveUp(new SnapshotLost('QEMU does not keep the snapshot any more'));
    // A filter that broke lets nobody read any more, but a read that was under way may have met the present.
    for (const disk of this.#pushed) await disk.probe(signal);
    if (this.#failure !== null) throw this.#failure;
  }

  /** The same disk, whose failures say what ended the snapshot. */
  watching(source: BlockSource): BlockSource {
    const explain = (error: unknown): unknown => this.#failure ?? error;
    return {
      ...source,
      async *changedExtents(since, signal) {
        try {
          yield* source.changedExtents(since, signal);
        } catch (error) {
          throw explain(error);
        }
      },
      read: async (offset, into, signal) => {
        if (this.#failure !== null) throw this.#failure;
        await source.read(offset, into, signal).catch((error: unknown) => {
          throw explain(error);
        });
      },
    };
  }

  [Symbol.dispose](): void {
    this.#listening[Symbol.dispose]();
  }

  #hear({ event, data }: QmpEvent): void {
    if (event === 'BLOCK_IO_ERROR' && data.nospace === true && data.action === 'stop')
      this.giveUp(new ScratchFull('a write of the guest found no room: the snapshot was given up so that it goes on'));
    const ended = event === 'BLOCK_JOB_COMPLETED' || event === 'BLOCK_JOB_CANCELLED';
    if (ended && typeof data.device === 'string' && this.#jobs.includes(data.device))
      this.giveUp(new SnapshotLost(`QEMU's job ${data.device} ended before the run did: was it cancelled by hand?`));
  }

  async #end(): Promise<void> {
    const never = new AbortController().signal;
    await removeExports(this.#qmp, this.#marks, never);
    await cancelJobs(this.#qmp, this.#marks, never);
    const status = await this.#qmp.run('query-status', {}, never);
    const stopped = typeof status === 'object' && status !== null && 'status' in status && status.status === 'io-error';
    if (stopped) await this.#qmp.run('cont', {}, never);
  }
}
