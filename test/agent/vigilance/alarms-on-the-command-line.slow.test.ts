import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { failkitHere } from '../in-process.ts';

/** What an operator and a monitor see of a machine whose disk gets encrypted. */

const folder = mkdtempSync(join(tmpdir(), 'failkit-alarms-'));
const image = join(folder, 'web.raw');
const diskBytes = 40 * 65_536;
const usualRuns = 9;
let goodPoint = 0;
let flaggedPoint = 0;

interface Answer {
  readonly machines: readonly {
    readonly point?: number;
    readonly flag?: string | null;
    readonly alarms?: readonly { readonly kind: string; readonly what: string; readonly acknowledged?: boolean }[];
    readonly attention?: readonly { readonly state: string; readonly what: string; readonly fix: string }[];
    readonly tracking?: { readonly disks: readonly { readonly checking: string }[] };
    readonly lastRun?: { readonly alarms: readonly string[] };
    readonly points?: readonly { readonly point: number; readonly flag: string | null; readonly mustKeep: boolean }[];
  }[];
}

beforeAll(async () => {
  writeFileSync(
    join(folder, 'failkit.yaml'),
    `repository: { target: filesystem, directory: bucket }
keys: { provider: local-key, file: local.key }
state: state
changeAlarm: { fromMiB: 0.1 }
logging: { level: info, file: log }
machines:
  - { name: web, source: { type: image, disks: [{ label: root, path: web.raw }] }, whenChanging: mark-inconsistent }
`,
  );
  write(0, Buffer.alloc(diskBytes, 'text that compresses well '));
  await failkit('init', '--kit', join(folder, 'kit'));
  await failkit('seed');
  for (let run = 0; run < usualRuns; run++) {
    write(run * 65_536, Buffer.alloc(65_536, `other text, number ${run} `));
    goodPoint = (await answer('sync')).machines[0]?.point ?? 0;
  }
});
afterAll(() => rmSync(folder, { recursive: true }));

it('the run that replicates it says so, publishes it, and is done', async () => {
  write(0, randomBytes(diskBytes / 2));
  const { exitCode, stdout } = await failkit('sync', '--json');
  expect(exitCode).toBe(0);
  const [machine] = (JSON.parse(stdout) as Answer).machines;
  flaggedPoint = machine?.point ?? 0;
  expect(machine?.flag).toMatch(/^changed 50 % of its disks at ratio 1\.0; usual is 2\.5 % at ratio \d/);
  expect(machine?.alarms).toEqual([{ kind: 'change', what: machine?.flag }]);
  const log = readFileSync(join(folder, 'log'), 'utf8');
  expect(log).toMatch(/"level":"warn".*"kind":"change".*"what":"changed 50 %/);
  expect(log).toMatch(
    /"fullReads":\[\{"disk":"[^"]+","reason":"first full copy of this disk"\}\].*recovery point published/,
  );
});

it('status asks for attention, says what was there before, and what to do', async () => {
  const { exitCode, stdout } = await failkit('status');
  expect(exitCode).toBe(3);
  expect(stdout).toMatch(/^suspicious {2}web /m);
  const lines = stdout.replace(/\s+/g, ' ');
  expect(lines).toMatch(new RegExp(`point ${flaggedPoint} changed 50 % .*: ransomware or a runaway job\\?`));
  expect(lines).toContain(`the last point before it is ${goodPoint}`);
  expect(lines).toContain('with an alarm');
  const [machine] = (await answer('status')).machines;
  expect(machine?.attention).toMatchObject([{ state: 'suspicious' }]);
  expect(machine?.alarms).toMatchObject([{ kind: 'change', point: flaggedPoint, acknowledged: false }]);
  expect(machine?.lastRun?.alarms).toHaveLength(1);
  expect(machine?.tracking?.disks).toMatchObject([{ checking: 'each run' }]);
});

it('later points are not flagged, the attention stays, and points says which ones retention has to keep', async () => {
  expect((await answer('sync')).machines[0]).toMatchObject({ flag: null, alarms: [] });
  expect((await failkit('status')).exitCode).toBe(3);
  const points = (await answer('points')).machines[0]?.points ?? [];
  expect(points.filter(({ flag }) => flag !== null).map(({ point }) => point)).toEqual([flaggedPoint]);
  expect(points.filter(({ mustKeep }) => mustKeep).map(({ point }) => point)).toEqual([
    goodPoint,
    points.at(-1)?.point,
  ]);
  const { stdout } = await failkit('points');
  expect(stdout).toMatch(/ inconsistent flagged|crash-consistent flagged/);
  expect(stdout).toMatch(new RegExp(`^point ${flaggedPoint} changed 50 % .*runaway job\\?$`, 'm'));
});

it('who restores a flagged point is told', async () => {
  const flagged = await failkit('restore', 'web', '--point', `${flaggedPoint}`, '--to', join(folder, 'flagged'));
  expect(flagged.stderr).toMatch(/is flagged: it changed 50 %/);
  const good = await failkit('restore', 'web', '--point', `${goodPoint}`, '--to', join(folder, 'good'));
  expect(good.stderr).not.toContain('flagged');
});

it('once a person has seen it, status asks no longer, and the flag stays', async () => {
  const first = await failkit('acknowledge', 'web', '--json');
  expect(JSON.parse(first.stdout)).toEqual({ machines: [{ machine: 'web', alarms: 1 }] });
  expect((await failkit('acknowledge', 'web')).stdout).toContain('web: no alarm to acknowledge');
  const status = await answer('status');
  expect(status.machines[0]).toMatchObject({ attention: [], alarms: [{ acknowledged: true }] });
  expect((await answer('points')).machines[0]?.points?.some(({ flag }) => flag !== null)).toBe(true);
  expect((await failkit('acknowledge', 'db')).exitCode).toBe(2);
});

function write(offset: number, bytes: Uint8Array): void {
  const content = Buffer.alloc(diskBytes);
  if (offset > 0 || bytes.length < diskBytes) readFileSync(image).copy(content);
  content.set(bytes, offset);
  writeFileSync(image, content);
}

function failkit(...args: string[]) {
  return failkitHere(['--config', join(folder, 'failkit.yaml'), ...args]);
}

async function answer(...args: string[]): Promise<Answer> {
  return JSON.parse((await failkit(...args, '--json')).stdout) as Answer;
}
