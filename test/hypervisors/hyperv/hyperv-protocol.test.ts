/** What goes over the line between the agent and its worker: golden transcripts, and that all who speak it mean the same. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { describe, expect, it } from 'vitest';
import * as z from 'zod';
import { examineMachine } from '../../../hypervisors/hyperv/examine-hyperv.ts';
import { askHost, askMachines, enableMerging } from '../../../hypervisors/hyperv/hyperv-calls.ts';
import { connectHyperv } from '../../../hypervisors/hyperv/hyperv-connection.ts';
import { HypervUnreachable } from '../../../hypervisors/hyperv/hyperv-errors.ts';
import { HypervHosts } from '../../../hypervisors/hyperv/hyperv-hosts.ts';
import type { HypervHost } from '../../../hypervisors/hyperv/hyperv-machine.ts';
import { WorkerClient } from '../../../hypervisors/hyperv/worker-client.ts';
import type { HypervisorConnection } from '../../../hypervisors/hypervisor.ts';
import { ModelHost, modelVm } from './model-host.ts';
import { ModelLab, quickPace } from './model-lab.ts';
import { answerLine } from './model-protocol.ts';

const never = new AbortController().signal;
const root = join(import.meta.dirname, '../../..');
const golden = join(root, 'fixtures/hyperv/three-runs.ndjson');
const workerText = readFileSync(join(root, 'hypervisors/hyperv/hyperv-worker.ps1'), 'utf8');

describe('three runs of a machine, and a look at it', () => {
  it('ask and are answered as the golden transcript says (FAILKIT_WRITE_GOLDEN=1 writes it)', async () => {
    const spoken = await threeRuns();
    if (process.env.FAILKIT_WRITE_GOLDEN === '1') writeFileSync(golden, `${spoken.join('\n')}\n`);
    expect(spoken).toEqual(readFileSync(golden, 'utf8').trimEnd().split('\n'));
  });

  it('ask nothing that the PowerShell worker does not know, and name nothing that it does not answer with', async () => {
    const lines = readFileSync(golden, 'utf8')
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
    const operations = new Set(lines.flatMap(({ op }) => op ?? []));
    expect(operations.size).toBe(13);
    for (const operation of operations) expect(workerText).toContain(`    '${operation}' { return `);
    const keys = new Set(lines.flatMap(({ value }) => keysIn(value)));
    expect(keys.size).toBeGreaterThan(30);
    for (const key of keys) expect(workerText, key).toMatch(new RegExp(`\\b${key} = `));
    const given = new Set(lines.flatMap(({ args }) => Object.keys(args ?? {})));
    for (const key of given) expect(workerText, key).toMatch(new RegExp(`\\$asked\\.${key}\\b`));
  });
});

/** The last one fails before its point is published, at a host that does everything as a job. */
async function threeRuns(): Promise<readonly string[]> {
  using lab = new ModelLab();
  lab.model.addDisk('scsi0:0', Buffer.alloc(2 ** 20, 1));
  let since = new Map<string, Uint8Array | null>();
  for (const run of [1, 2, 3]) {
    lab.model.manners.jobStates = run === 3 ? [2, 4] : [];
    await using connection = lab.connect();
    const options = { quiesce: 'prefer', whenChanging: 'refuse', since } as const;
    const snapshot = await connection.snapshot({ name: 'web' }, options, never);
    for (const disk of snapshot.disks) for await (const _ of disk.changedExtents(since.get(disk.label) ?? null, never));
    await snapshot.settleConsistency(never);
    since = new Map(snapshot.disks.map(({ label, referencePoint }) => [label, referencePoint]));
    if (run < 3) snapshot.notePublished?.();
    await snapshot[Symbol.asyncDispose]();
    lab.model.write('scsi0:0', 4096, new Uint8Array(512));
  }
  await using hosts = new HypervHosts();
  const site = await hosts.site(lab.machine, quickPace, never);
  await askHost(site.client, never);
  await askMachines(site.client, never);
  await enableMerging(site.client, lab.machine.vm, never);
  await examineMachine(site, never);
  return lab.transcript.map((line) =>
    line
      .replace(/failkit-a1b2c3d4-[0-9a-f]{8}/g, 'failkit-a1b2c3d4-00000000')
      .replace(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, '2026-01-01T00:00:00.000Z'),
  );
}

function keysIn(value: unknown): readonly string[] {
  if (Array.isArray(value)) return value.flatMap(keysIn);
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([key, inner]) => [key, ...keysIn(inner)]);
}

describe('a worker', () => {
  /** `answers`: to each question, or null: it is silent. */
  function clientOf(answers: (id: number, line: string, output: PassThrough) => string | null, idleMs?: number) {
    let starts = 0;
    const start = async () => {
      starts++;
      const [input, output, complaints] = [new PassThrough(), new PassThrough(), new PassThrough()];
      input.on('data', (chunk: Buffer) => {
        for (const line of chunk.toString().trim().split('\n')) {
          const { id } = JSON.parse(line) as { id: number };
          const answer = answers(id, line, output);
          if (answer !== null) output.write(`${answer}\n`);
        }
      });
      complaints.write('#< CLIXML Ein Fehler ist aufgetreten.');
      return { input, output, complaints, kill: () => output.destroy() };
    };
    const client = new WorkerClient('host hv', start, idleMs);
    return { client, starts: () => starts };
  }
  const ask = (client: WorkerClient, timeoutMs = 60_000, signal = never) =>
    client.call('hello', {}, z.string(), signal, timeoutMs);
  const said = (id: number, value: unknown): string => JSON.stringify({ id, ok: true, value });

  it('is started once, and asked one question after the other', async () => {
    const { client, starts } = clientOf((id) => said(id, `answer ${id}`));
    expect(await Promise.all([ask(client), ask(client), ask(client)])).toEqual(['answer 1', 'answer 2', 'answer 3']);
    expect(starts()).toBe(1);
  });

  it('is ended when nobody asks for long, and started again for the next question', async () => {
    const { client, starts } = clientOf((id) => said(id, `answer ${id}`), 1);
    expect(await ask(client)).toBe('answer 1');
    await expect
      .poll(async () => [await ask(client), starts()], { interval: 50 })
      .toEqual([expect.stringMatching(/answer/), 3]);
  });

  it('that is at the question of one machine keeps none that is given up from ending', async () => {
    const { client } = clientOf(() => null);
    const gone = new AbortController();
    const [busy, waiting] = [ask(client, 60_000, gone.signal), ask(client, 60_000, AbortSignal.timeout(20))];
    await expect(waiting).rejects.toMatchObject({ name: 'TimeoutError' });
    gone.abort(new Error('enough'));
    await expect(busy).rejects.toThrow('enough');
  });

  it('that does not answer in time is ended, and another one is started for the next question', async () => {
    const { client, starts } = clientOf((id) => (id === 1 ? null : said(id, 'there')));
    await expect(ask(client, 20)).rejects.toMatchObject({ code: 'HYPERV_TIMED_OUT' });
    expect([await ask(client), starts()]).toEqual(['there', 2]);
  });

  it.for([
    ['what is no JSON', 'Windows PowerShell'],
    ['an answer to what was not asked', said(7, 'x')],
    ['an answer without its parts', JSON.stringify({ id: 1, ok: true })],
    ['an answer of another form', said(1, { a: 1 })],
  ])('that writes %s is not believed', async ([, line = '']) => {
    const { client } = clientOf(() => line);
    await expect(ask(client)).rejects.toMatchObject({ code: 'HYPERV_ANSWER_INVALID' });
  });

  it('whose answer never ends is ended', async () => {
    const { client } = clientOf((_, __, output) => {
      for (let i = 0; i < 33; i++) output.write('x'.repeat(1024 * 1024));
      return null;
    });
    await expect(ask(client)).rejects.toMatchObject({ code: 'HYPERV_ANSWER_INVALID' });
  });

  it('that ends says its last words, and is started anew', async () => {
    const { client, starts } = clientOf((id, _, output) => {
      if (id > 1) return said(id, 'there');
      output.destroy();
      return null;
    });
    await expect(ask(client)).rejects.toThrow(/host hv: the worker ended: #< CLIXML Ein Fehler/);
    expect([await ask(client), starts()]).toEqual(['there', 2]);
  });

  it('is told of by numbers, where Hyper-V refuses', async () => {
    const error = { kind: 'refused', message: 'Belegt.', returnValue: 32_774, hresult: '0x80070020' };
    const { client } = clientOf((id) => JSON.stringify({ id, ok: false, error }));
    await expect(ask(client)).rejects.toMatchObject({
      ...{ code: 'HYPERV_REFUSED', message: /refused hello \(32774, in use, 0x80070020\) Belegt\./ },
      detail: { returnValue: 32_774 },
    });
  });

  it('goes on after a question was given up, and its late answer is nobody else’s', async () => {
    const gone = new AbortController();
    const late = new AbortController();
    const { client } = clientOf((id, _, output) => {
      if (id > 1) return said(id, 'second');
      late.signal.addEventListener('abort', () => output.write(`${said(1, 'first')}\n`));
      return null;
    });
    const first = ask(client, 60_000, gone.signal);
    const reason = new Error('enough');
    setImmediate(() => gone.abort(reason));
    await expect(first).rejects.toBe(reason);
    late.abort();
    expect(await ask(client)).toBe('second');
  });
});

describe('the hosts of a process', () => {
  const machine = (name: string, host: HypervHost) => ({
    ...({
      name,
      host,
      vm: modelVm,
      excludedDisks: [],
      volumeFreeBytesMin: 0,
      tracking: 'enable',
      journalFolder: '/nowhere',
      tag: 'a1b2c3d4',
    } as const),
  });

  async function namesOf(connection: HypervisorConnection): Promise<string[]> {
    const names: string[] = [];
    for await (const { name } of connection.listMachines(never)) names.push(name);
    return names;
  }

  /** It counts what is opened and what is closed, and breaks when it is told to. */
  function countedHost() {
    const counts = { opened: 0, closed: 0, workers: 0, lost: false, fails: 0 };
    const model = new ModelHost('/machines');
    const host: HypervHost = {
      name: 'hv',
      async open() {
        counts.opened++;
        counts.lost = false;
        if (counts.fails-- > 0) throw new HypervUnreachable('it is down');
        return {
          startWorker: async () => {
            counts.workers++;
            const [input, output, complaints] = [new PassThrough(), new PassThrough(), new PassThrough()];
            input.on('data', (line: Buffer) => void output.write(`${answerLine(model, line.toString())}\n`));
            return { input, output, complaints, kill: () => output.destroy() };
          },
          openFile: async () => null,
          isLost: () => counts.lost,
          async [Symbol.asyncDispose]() {
            counts.closed++;
          },
        };
      },
    };
    return { counts, host };
  }

  it('are asked by all machines through one worker each', async () => {
    const { counts, host } = countedHost();
    {
      await using hosts = new HypervHosts();
      const connection = connectHyperv([machine('one', host), machine('two', host)], hosts, quickPace);
      const another = connectHyperv([machine('three', host)], hosts, quickPace);
      const listed = await Promise.all([connection, another].map(namesOf));
      expect(listed.flat()).toEqual(['one', 'two', 'three']);
      await connection[Symbol.asyncDispose]();
      await namesOf(another);
      expect(counts).toMatchObject({ opened: 1, workers: 1, closed: 0 });
    }
    expect(counts.closed).toBe(1);
  });

  it('are opened anew, once, when their connection broke, and after one could not be opened', async () => {
    const { counts, host } = countedHost();
    await using hosts = new HypervHosts();
    counts.fails = 1;
    await expect(Promise.all([hosts.open(host, never), hosts.open(host, never)])).rejects.toThrow('it is down');
    const first = await hosts.open(host, never);
    counts.lost = true;
    const [second, third] = await Promise.all([hosts.open(host, never), hosts.open(host, never)]);
    expect([second === first, second === third]).toEqual([false, true]);
    expect(counts).toMatchObject({ opened: 3, closed: 1 });
  });

  it('are not given up for all when one gives up', async () => {
    const { host } = countedHost();
    const slow = Promise.withResolvers<void>();
    await using hosts = new HypervHosts();
    const late: HypervHost = { name: 'late', open: async (signal) => slow.promise.then(() => host.open(signal)) };
    const gone = new AbortController();
    const [impatient, patient] = [hosts.open(late, gone.signal), hosts.open(late, never)];
    gone.abort(new Error('enough'));
    await expect(impatient).rejects.toThrow('enough');
    slow.resolve();
    expect((await patient).isLost()).toBe(false);
  });
});
