import { PipelineWorkers } from '../../agent/protect/pipeline-workers.ts';
import { RestoreWorkers } from '../../restore/restore-workers.ts';

/** Worker threads that many rigs share: to start them takes longer than a small run. */
export class RigWorkers implements AsyncDisposable {
  readonly pipeline = new PipelineWorkers(1);
  readonly restore = new RestoreWorkers(1);

  async [Symbol.asyncDispose](): Promise<void> {
    await this.pipeline[Symbol.asyncDispose]();
    await this.restore[Symbol.asyncDispose]();
  }
}
