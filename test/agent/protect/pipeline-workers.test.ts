import { readdir, readFile } from 'node:fs/promises';
import { getPriority } from 'node:os';
import { describe, expect, it } from 'vitest';
import { PipelineWorkers } from '../../../agent/protect/pipeline-workers.ts';

describe('the worker threads of a run', () => {
  it.skipIf(process.platform !== 'linux')(
    'yield to what else the host does, and nobody else does (needs Linux)',
    async () => {
      const own = getPriority();
      const before = await threadsOfNiceness(10);
      await using workers = new PipelineWorkers(1);
      await workers.squeeze([], new AbortController().signal);
      expect((await threadsOfNiceness(10)) - before).toBe(1);
      expect(getPriority()).toBe(own);
    },
  );
});

/** proc_pid_stat(5): niceness is the 19th field, the 17th after the name in brackets. */
async function threadsOfNiceness(niceness: number): Promise<number> {
  const threads = await readdir('/proc/self/task');
  const stats = await Promise.all(
    threads.map((id) => readFile(`/proc/self/task/${id}/stat`, 'latin1').catch(() => '')),
  );
  return stats.filter((stat) => Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[16]) === niceness).length;
}
