import { mkdtempSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { Interrupted } from '../../agent/interrupt.ts';
import { keepingRunRecord } from '../../agent/keep-run-record.ts';
import { MachineState } from '../../agent/state/machine-state.ts';
import { noRuns, withBegun } from '../../agent/state/run-record.ts';
import { writeImageMachines } from './image-machines.ts';
import { failkitHere } from './in-process.ts';

/** What `failkit status` knows of runs after they are over, whatever became of them. */

const folder = mkdtempSync(join(tmpdir(), 'failkit-last-run-'));
const state = join(folder, 'state');
const never = new AbortController().signal;

interface Shown {
  readonly exitCode: number;
  readonly machines: readonly {
    readonly machine: string;
    readonly running: boolean;
    readonly runningSince: string | null;
    readonly attention: readonly { readonly state: string; readonly what: string; readonly fix: string }[];
    readonly lastRun: {
      readonly verb: string;
      readonly startedTime: string;
      readonly endedTime: string | null;
      readonly outcome: string;
      readonly point?: number;
      readonly error?: { readonly code: string; readonly message: string; readonly hint: string | null };
    } | null;
  }[];
}

beforeAll(async () => {
  writeImageMachines(folder, ['web', 'db']);
  for (const command of [['init', '--kit', join(folder, 'kit')], ['seed']])
    expect((await failkit(...command)).exitCode, command.join(' ')).toBe(0);
});
afterAll(() => rmSync(folder, { recursive: true }));

it('a run that published says when, and which point', async () => {
  const { exitCode, machines } = await status();
  expect(exitCode).toBe(0);
  for (const { lastRun, attention } of machines) {
    expect(lastRun).toMatchObject({ verb: 'seed', outcome: 'published', point: 2 });
    expect(Date.parse(lastRun?.startedTime ?? '')).toBeLessThanOrEqual(Date.parse(lastRun?.endedTime ?? ''));
    expect(attention).toEqual([]);
  }
});

it('a run that failed needs attention, however young the newest point is, until one succeeds', async () => {
  renameSync(join(folder, 'web.raw'), join(folder, 'away.raw'));
  expect((await failkit('sync')).exitCode).toBe(3);
  const failed = await status('--max-rpo', '1h');
  expect(failed.exitCode).toBe(3);
  const [web, db] = failed.machines;
  expect(web?.lastRun).toMatchObject({ verb: 'sync', outcome: 'failed', error: { code: 'SOURCE_NOT_FOUND' } });
  expect(web?.lastRun?.error?.message).toContain('web.raw');
  expect(web?.attention).toMatchObject([{ state: 'failing', fix: web?.lastRun?.error?.hint }]);
  expect(db).toMatchObject({ lastRun: { outcome: 'published', point: 4 }, attention: [] });
  const { stdout } = await failkit('status', 'web');
  expect(stdout).toMatch(/^failing {2}web /m);
  expect(stdout).toMatch(/the last run, a sync .* ago, failed with SOURCE_NOT_FOUND: .*web\.raw/);
  expect(stdout).toContain('what to do: check the machine in the configuration');
  renameSync(join(folder, 'away.raw'), join(folder, 'web.raw'));
  expect((await failkit('sync', 'web')).exitCode).toBe(0);
  expect(await status()).toMatchObject({ exitCode: 0 });
});

it('so does one that failed before it came to the machine', async () => {
  renameSync(join(folder, 'local.key'), join(folder, 'away.key'));
  expect((await failkit('sync', 'db')).exitCode).toBe(5);
  let [web, db] = (await status()).machines;
  expect(web).toMatchObject({ lastRun: { outcome: 'published' }, attention: [] });
  expect(db).toMatchObject({
    lastRun: { outcome: 'failed', error: { code: 'KEY_FILE_UNUSABLE' } },
    attention: [{ state: 'failing' }],
  });
  expect((await failkit('sync')).exitCode).toBe(5);
  [web, db] = (await status()).machines;
  expect([web?.lastRun?.outcome, db?.lastRun?.outcome]).toEqual(['failed', 'failed']);
  renameSync(join(folder, 'away.key'), join(folder, 'local.key'));
  expect((await failkit('sync', 'db')).exitCode).toBe(0);
  [web, db] = (await status()).machines;
  expect([web?.lastRun?.outcome, db?.lastRun?.outcome]).toEqual(['failed', 'published']);
  expect((await failkit('sync', 'web')).exitCode).toBe(0);
});

it('one that never said how it ended was killed, and the next one does not forget it', async () => {
  const begun = { verb: 'sync', startedMs: Date.now() };
  withState((own) => own.keepRunRecord(withBegun(own.runRecord, begun)));
  const killed = await status();
  expect(killed.exitCode).toBe(6);
  expect(killed.machines[0]).toMatchObject({
    lastRun: { outcome: 'killed', endedTime: null },
    attention: [{ state: 'failing', what: expect.stringContaining('was killed before it ended') }],
  });
  withState((own) => own.keepRunRecord(withBegun(own.runRecord, begun)));
  withState((own) => expect(own.runRecord.last?.end).toEqual({ how: 'killed' }));
  expect((await failkit('sync', 'web')).exitCode).toBe(0);
  expect((await status()).machines[0]).toMatchObject({ lastRun: { outcome: 'published' }, attention: [] });
});

it('one that is under way is shown with its beginning, besides how the one before ended', async () => {
  let shown: Shown | null = null;
  using own = new MachineState(state, 'web');
  await keepingRunRecord(own, 'resync', never, async () => {
    shown = await status();
    const { stdout } = await failkit('status', 'web');
    expect(stdout).toMatch(/a resync is under way for \d+ ms/);
    return { point: 99, alarms: [] };
  });
  expect(shown).toMatchObject({
    exitCode: 0,
    machines: [{ running: true, lastRun: { verb: 'sync', outcome: 'published' } }, { running: false }],
  });
  const since = (shown as Shown | null)?.machines[0]?.runningSince ?? '';
  expect(Date.now() - Date.parse(since)).toBeLessThan(60_000);
});

it('a first run is no error to whoever looks meanwhile', async () => {
  using own = new MachineState(state, 'fresh');
  await keepingRunRecord(own, 'seed', never, async () => {
    expect(MachineState.look(state, 'fresh', ({ runRecord }, running) => [runRecord.begun?.verb, running])).toEqual([
      'seed',
      true,
    ]);
    return { point: 2, alarms: [] };
  });
});

it('Ctrl-C is no failure, and the wrong command no run', async () => {
  const interrupted = AbortSignal.abort(new Interrupted('stopped by SIGINT'));
  withState((own) => own.keepRunRecord(noRuns));
  using own = new MachineState(state, 'stopped');
  await expect(
    keepingRunRecord(own, 'sync', interrupted, async () => await Promise.reject(interrupted.reason)),
  ).rejects.toThrow(Interrupted);
  expect(own.runRecord).toMatchObject({ begun: null, last: { end: { how: 'interrupted' } } });
  expect((await failkit('seed', 'web')).exitCode).toBe(2);
  withState((web) => expect(web.runRecord).toEqual(noRuns));
});

it('what is kept of a machine is sealed', async () => {
  renameSync(join(folder, 'web.raw'), join(folder, 'away.raw'));
  expect((await failkit('sync', 'web')).exitCode).toBe(3);
  renameSync(join(folder, 'away.raw'), join(folder, 'web.raw'));
  const machines = join(state, 'machines');
  for (const name of readdirSync(machines)) {
    const database = readFileSync(join(machines, name, 'state.sqlite'));
    expect(database.includes('web.raw')).toBe(false);
    expect(database.includes('SOURCE_NOT_FOUND')).toBe(false);
  }
});

function failkit(...args: string[]) {
  return failkitHere(['--config', join(folder, 'failkit.yaml'), ...args]);
}

async function status(...args: string[]): Promise<Shown> {
  const { exitCode, stdout } = await failkit('status', '--json', ...args);
  return { exitCode, ...(JSON.parse(stdout) as Omit<Shown, 'exitCode'>) };
}

function withState(work: (own: MachineState) => void): void {
  using own = new MachineState(state, 'web');
  work(own);
}
