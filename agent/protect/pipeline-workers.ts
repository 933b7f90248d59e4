import { Piscina } from 'piscina';
import type { SealedSegment } from '../../replica/segment.ts';
import type { SealTask } from './seal-task.ts';
import type { Squeezed, SqueezeTask } from './squeeze.ts';

/** The worker threads of one run. */
export class PipelineWorkers implements AsyncDisposable {
  readonly #pool: Piscina;

  constructor(threads: number) {
    const filename = new URL(`./pipeline-worker${import.meta.url.endsWith('.ts') ? '.ts' : '.js'}`, import.meta.url)
      .href;
    // A thread that idles for a moment ends otherwise, and starting the next one takes longer than most tasks.
    const forever = { minThreads: 1, maxThreads: threads, idleTimeout: Number.POSITIVE_INFINITY };
    this.#pool = new Piscina({ filename, ...forever, recordTiming: false });
  }

  /** Each by itself, in one thread. Null where that could not read the file. */
  async squeeze(tasks: readonly SqueezeTask[], signal: AbortSignal): Promise<readonly (Squeezed | null)[]> {
    return await this.#run('squeezeTasks', tasks, signal);
  }

  async seal(task: SealTask, signal: AbortSignal): Promise<SealedSegment> {
    return await this.#run('sealSegmentTask', task, signal);
  }

  async #run<T>(name: string, task: unknown, signal: AbortSignal): Promise<T> {
    signal.throwIfAborted();
    // A task in a worker takes milliseconds: it is left to end rather than killed with its thread.
    const result: T = await this.#pool.run(task, { name });
    signal.throwIfAborted();
    return result;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#pool.destroy();
  }
}
