import { execFile } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';
import { getPriority } from 'node:os';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { PipelineWorkers } from '../../../agent/protect/pipeline-workers.ts';

const isLinux = process.platform === 'linux';

describe('the worker threads of a run', () => {
  it.skipIf(!isLinux)('yield to what else the host does, and nobody else does (needs Linux)', async () => {
    const own = getPriority();
    const before = await threadsOfNiceness(10);
    await using workers = new PipelineWorkers(1);
    await workers.squeeze([], new AbortController().signal);
    expect((await threadsOfNiceness(10)).filter((id) => !before.includes(id))).toHaveLength(1);
    expect(getPriority()).toBe(own);
  });

  it.skipIf(!isLinux)('keep the priority of an agent that was started with a lower one (needs Linux)', async () => {
    const workers = JSON.stringify(new URL('../../../agent/protect/pipeline-workers.ts', import.meta.url).href);
    const script = `const { PipelineWorkers } = await import(${workers});
      const own = new PipelineWorkers(1);
      await own.squeeze([], new AbortController().signal);
      const { readdirSync, readFileSync } = await import('node:fs');
      const of = (id) => readFileSync('/proc/self/task/' + id + '/stat', 'latin1').split(') ')[1].split(' ')[16];
      console.log([...new Set(readdirSync('/proc/self/task').map(of))].join());
      await own[Symbol.asyncDispose]();`;
    const node = [process.execPath, '--input-type=module', '--eval', script];
    const { stdout } = await promisify(execFile)('nice', ['-n', '15', ...node]);
    expect(stdout.trim()).toBe('15');
  });
});

/** proc_pid_stat(5): niceness is the 19th field, the 17th after the name in brackets. */
async function threadsOfNiceness(niceness: number): Promise<readonly string[]> {
  const threads = await readdir('/proc/self/task');
  const stats = await Promise.all(
    threads.map((id) => readFile(`/proc/self/task/${id}/stat`, 'latin1').catch(() => '')),
  );
  const nicenessOf = (stat: string): number => Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[16]);
  return threads.filter((_, i) => nicenessOf(stats[i] ?? '') === niceness);
}
