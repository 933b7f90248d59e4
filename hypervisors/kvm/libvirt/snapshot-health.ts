import { setTimeout as sleep } from 'node:timers/promises';
import type { BlockSource } from '../../hypervisor.ts';
import { ScratchFull, SnapshotLost } from '../kvm-errors.ts';
import type { Marks } from '../marks.ts';
import { endJobIn, findJob, isJobIn } from './backup-job.ts';
import { runStateOf } from './domain.ts';
import type { LibvirtSite } from './libvirt-site.ts';
import { openVirsh, type Virsh } from './virsh.ts';

/** Whether what is read is still the snapshot. Once it is not, nobody may go on reading. */

const watchPauseMs = 5_000;
const endPauseMs = 1_000;

export class SnapshotHealth implements AsyncDisposable {
  readonly #virsh: Virsh;
  readonly #uuid: string;
  readonly #marks: Marks;
  readonly #folder: string;
  readonly #stopping = new AbortController();
  readonly #watching: Promise<void>;
  #failure: Error | null = null;
  #ending: Promise<void> = Promise.resolve();

  constructor({ virsh, domain, marks, folder }: Pick<LibvirtSite, 'virsh' | 'domain' | 'marks' | 'folder'>) {
    this.#virsh = virsh;
    this.#uuid = domain.uuid;
    this.#marks = marks;
    this.#folder = folder;
    this.#watching = this.#watch();
  }

  /** Ends the snapshot, and lets a guest go on that QEMU stopped because a write found no room. */
  giveUp(failure: ScratchFull | SnapshotLost): void {
    if (this.#failure !== null) return;
    this.#failure = failure;
    this.#ending = this.#end();
  }

  /** Until libvirt has done it, or the run ends, which does it once more. A virsh of its own waits for nobody's question. */
  async #end(): Promise<void> {
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      try {
        using virsh = openVirsh(this.#virsh.uri);
        await endJobIn(this.#folder, virsh, this.#uuid, this.#marks, new AbortController().signal);
        return;
      } catch {
        await sleep(endPauseMs, undefined, { signal }).catch(() => undefined);
      }
    }
  }

  /** What ended the snapshot; null while nothing did. */
  get failure(): Error | null {
    return this.#failure;
  }

  /** Throws what ended the snapshot. When it returns, everything that was read before is what the disks held. */
  async check(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (this.#failure === null) {
      const job = await findJob(this.#virsh, this.#uuid, signal);
      if (!isJobIn(job, this.#folder))
        this.giveUp(
          new SnapshotLost(`libvirt does not keep the snapshot of domain ${this.#uuid} any more: did somebody end it?`),
        );
    }
    if (this.#failure !== null) throw this.#failure;
  }

  /** The same disk, whose failures say what ended the snapshot. */
  watching(source: BlockSource): BlockSource {
    const explain = async (error: unknown, signal: AbortSignal): Promise<unknown> => {
      if (signal.aborted) return error;
      await this.check(signal).catch(() => undefined);
      return this.#failure ?? error;
    };
    const requireWhole = (): void => {
      if (this.#failure !== null) throw this.#failure;
    };
    return {
      ...source,
      async *changedExtents(since, signal) {
        requireWhole();
        try {
          yield* source.changedExtents(since, signal);
        } catch (error) {
          throw await explain(error, signal);
        }
      },
      async read(offset, into, signal) {
        requireWhole();
        await source.read(offset, into, signal).catch(async (error: unknown) => {
          throw await explain(error, signal);
        });
      },
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping.abort();
    await Promise.allSettled([this.#watching, this.#ending]);
  }

  /** The scratch folder is watched by itself; a guest that outran that watch stands still. */
  async #watch(): Promise<void> {
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      try {
        await sleep(watchPauseMs, undefined, { signal });
        if (!(await runStateOf(this.#virsh, this.#uuid, signal)).stoppedByIoError) continue;
        this.giveUp(
          new ScratchFull('a write of the guest found no room: the snapshot was given up so that the guest goes on'),
        );
        return;
      } catch {
        // What libvirt can't answer now is asked again: it may restart while a first copy runs for hours.
      }
    }
  }
}
