import { cpSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { parseDuration } from '../../agent/quantities.ts';
import { MachineState } from '../../agent/state/machine-state.ts';
import { writeImageMachines } from './image-machines.ts';
import { failkitHere } from './in-process.ts';

const folder = mkdtempSync(join(tmpdir(), 'failkit-status-'));
const state = join(folder, 'state');
const machineStateOf = (name: string) =>
  join(state, 'machines', readdirSync(join(state, 'machines')).find((found) => found.startsWith(`${name}-`)) ?? '');

interface MachineDocument {
  readonly point: number | null;
  readonly rpoMs: number;
  readonly rpoCountsFrom: string;
  readonly consistency: string | null;
  readonly points: number;
  readonly freshness: string;
  readonly running: boolean;
  readonly storedBytes: number;
  readonly tenure: { readonly thisHost: boolean | null } | null;
  readonly attention: readonly { readonly state: string }[];
  readonly unfinishedRun: { readonly segments: number; readonly bytes: number } | null;
  readonly error?: { readonly code: string };
}

beforeAll(async () => {
  writeImageMachines(folder, ['web', 'spare']);
  for (const command of [
    ['init', '--kit', join(folder, 'kit')],
    ['seed', 'web'],
    ['sync', 'web'],
  ])
    expect((await failkit(...command)).exitCode, command.join(' ')).toBe(0);
  // From here on nothing may need a key.
  renameSync(join(folder, 'local.key'), join(folder, 'away.key'));
});
afterAll(() => rmSync(folder, { recursive: true }));

it('tells the newest point and its age without any key', async () => {
  const before = Date.now();
  const { exitCode, stdout } = await failkit('status', '--json');
  expect(exitCode).toBe(0);
  const [web, spare] = machinesIn(stdout);
  expect(web).toMatchObject({
    point: 4,
    points: 2,
    consistency: 'crash-consistent',
    rpoCountsFrom: 'snapshot',
    freshness: 'same',
    running: false,
    tenure: { thisHost: true },
    unfinishedRun: null,
    attention: [],
  });
  expect(web?.storedBytes).toBeGreaterThan(300_000);
  expect(web?.storedBytes).toBeLessThan(400_000);
  expect(spare).toMatchObject({ point: null, points: 0, tenure: null, attention: [] });
  await sleep(20);
  const later = machinesIn((await failkit('status', '--json')).stdout)[0];
  expect(later?.rpoMs).toBeGreaterThan((web?.rpoMs ?? 0) + 19);
  expect(later?.rpoMs).toBeLessThan(Date.now() - before + 90_000);
});

it('says it to a person in one line for each machine, with what is to be done', async () => {
  const { stdout } = await failkit('status');
  const [titles = '', web = '', run = '', spare = '', why = ''] = stdout.split('\n');
  expect(titles).toMatch(/^ {6}machine .*RPO .*point .*snapshot \(UTC\) +consistent +points +stored$/);
  expect(web).toMatch(/^ok {4}web +\S+ (ms|s) +4 {2}20\d\d-\d\d-\d\d \d\d:\d\d +crash +2 +\d+ KiB$/);
  expect(run).toMatch(/^ {4}last run: a sync \S+ m?s ago, published point 4 in \S+ m?s$/);
  expect(spare).toMatch(/^none {2}spare +– +– {2}none yet$/);
  expect(why).toContain('never seeded from this host');
  for (const line of [titles, web, spare]) expect(line.length).toBeLessThanOrEqual(80);
});

it('fails where a machine has nothing new enough', async () => {
  expect(await failkit('status', 'web', '--max-rpo', '1h')).toMatchObject({ exitCode: 0 });
  const late = await failkit('status', '--max-rpo', '1h');
  expect(late.exitCode).toBe(6);
  expect(late.stdout).toContain('what to do: failkit seed spare');
  await sleep(5);
  expect(await failkit('status', 'web', '--max-rpo', '0s')).toMatchObject({ exitCode: 6 });
  expect(await failkit('status', '--max-rpo', 'soon')).toMatchObject({ exitCode: 2 });
  expect(await failkit('status', 'unknown')).toMatchObject({ exitCode: 2 });
});

it('neither waits for a run nor is in its way', async () => {
  const running = new MachineState(state, 'web');
  try {
    const { exitCode, stdout } = await failkit('status', 'web', '--json');
    expect(exitCode).toBe(0);
    expect(machinesIn(stdout)[0]).toMatchObject({ point: 4, rpoCountsFrom: 'snapshot', running: true });
  } finally {
    running[Symbol.dispose]();
  }
  // Looked at before a process that made the file has written anything into it.
  const first = new MachineState(state, 'fresh');
  expect(() => MachineState.look(state, 'fresh', () => 'read')).toThrow(/another failkit process/);
  first[Symbol.dispose]();
});

it('leaves no trace of itself', async () => {
  await failkit('status');
  expect(readdirSync(machineStateOf('web')).sort()).toEqual(['seal.key', 'state.sqlite']);
  expect(readdirSync(join(state, 'machines')).some((name) => name.startsWith('spare-'))).toBe(false);
});

it('shows what an interrupted run had stored, and what verify found damaged', async () => {
  await withState((own) => own.journal({ tenure: 5, number: 1, size: 4096, units: 3, sha256: new Uint8Array(32) }, []));
  const interrupted = await failkit('status', 'web', '--json');
  expect(interrupted.exitCode).toBe(0);
  expect(machinesIn(interrupted.stdout)[0]).toMatchObject({ unfinishedRun: { segments: 1, bytes: 4096 } });
  await withState((own) => own.addDamagedSegments([{ tenure: 1, number: 1 }]));
  const damaged = await failkit('status', 'web', '--max-rpo', '0s');
  expect(damaged.exitCode).toBe(7);
  expect(damaged.stdout).toMatch(/^damaged {2}web /m);
  await withState((own) => {
    own.clearJournal();
    own.clearDamagedSegments();
  });
});

it('tells a fenced host so, and a bucket that lost its newest entries', async () => {
  const ownKey = join(state, 'agent.key');
  renameSync(ownKey, join(folder, 'own.key'));
  expect(machinesIn((await failkit('status', 'web', '--json')).stdout)[0]).toMatchObject({
    tenure: { thisHost: null },
  });
  // A key of its own, as another host has one.
  expect((await failkit('root', 'request', join(folder, 'request'))).exitCode).toBe(0);
  const fenced = await failkit('status', 'web');
  expect(fenced.exitCode).toBe(6);
  expect(fenced.stdout).toContain('took the machine over: this host is fenced');
  rmSync(ownKey);
  renameSync(join(folder, 'own.key'), ownKey);

  const chain = join(folder, 'bucket', 'machines', readdirSync(join(folder, 'bucket', 'machines'))[0] ?? '', 'chain');
  cpSync(chain, join(folder, 'chain'), { recursive: true });
  rmSync(join(chain, readdirSync(chain).sort()[0] ?? ''));
  const { exitCode, stdout } = await failkit('status', '--json');
  expect(exitCode).toBe(6);
  expect(machinesIn(stdout)).toMatchObject([{ error: { code: 'REPLICA_ROLLED_BACK' } }, { point: null }]);
  rmSync(chain, { recursive: true });
  expect(machinesIn((await failkit('status', '--json')).stdout)[0]?.error?.code).toBe('REPLICA_ROLLED_BACK');
  renameSync(join(folder, 'chain'), chain);
});

it('knows only the time of publishing where another host made the point', async () => {
  await withState((own) => own.clearCache());
  const { stdout } = await failkit('status', 'web', '--json');
  expect(machinesIn(stdout)[0]).toMatchObject({ point: 4, consistency: null, rpoCountsFrom: 'publishing' });
  expect((await failkit('status', 'web')).stdout).toContain('its snapshot time is sealed');
});

it('takes durations as people type them', () => {
  const hourMs = 3_600_000;
  expect(['90s', '15min', '15m', '4h', '1d12h', '1 h 30 min'].map(parseDuration)).toEqual(
    [0.025, 0.25, 0.25, 4, 36, 1.5].map((hours) => hours * hourMs),
  );
  for (const text of ['', ' ', '15', 'h', '-1h', '1h1d', '1.5h', '1w']) expect(parseDuration(text)).toBeNull();
});

function failkit(...args: string[]) {
  return failkitHere(['--config', join(folder, 'failkit.yaml'), ...args]);
}

function machinesIn(stdout: string): readonly MachineDocument[] {
  return (JSON.parse(stdout) as { machines: MachineDocument[] }).machines;
}

async function withState(change: (own: MachineState) => void): Promise<void> {
  using own = new MachineState(state, 'web');
  change(own);
}
