import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { loadConfig } from '../../../agent/config/load-config.ts';
import { openAgentKey, openPinnedRepository } from '../../../agent/wire.ts';
import type { Chain } from '../../../replica/chain.ts';
import { listMachineIds, openRepository } from '../../../replica/open-repository.ts';
import { prunePoints } from '../../../replica/prune.ts';
import { openFilesystemTarget } from '../../../storage-targets/filesystem.ts';
import { failkitHere, type InProcess } from '../in-process.ts';

const noStop = new AbortController().signal;

/** What an operator does about old points and the space that they take. */

const folder = mkdtempSync(join(tmpdir(), 'failkit-retention-'));
const image = join(folder, 'web.raw');
const block = 65_536;
const contents: Buffer[] = [];
let points: readonly number[] = [];

beforeAll(async () => {
  configure('retention: { last: 2 }');
  for (let i = 0; i < 6; i++) contents.push(Buffer.alloc(8 * block, `what the disk held at the time of run ${i} `));
  await run('init', '--kit', join(folder, 'kit'));
  for (const content of contents) {
    writeFileSync(image, content);
    await run(content === contents[0] ? 'seed' : 'sync');
  }
  points = await retained();
});
afterAll(() => rmSync(folder, { recursive: true }));

function configure(retention: string, ofWeb = ''): void {
  writeFileSync(
    join(folder, 'failkit.yaml'),
    `repository: { target: filesystem, directory: bucket }
keys: { provider: local-key, file: local.key }
state: state
${retention}
machines:
  - { name: web, source: { type: image, disks: [{ label: root, path: web.raw }] }, whenChanging: mark-inconsistent${ofWeb} }
  - { name: db, source: { type: image, disks: [{ label: root, path: db.raw }] } }
`,
  );
}

const failkit = (...args: readonly string[]): Promise<InProcess> =>
  failkitHere(['--config', join(folder, 'failkit.yaml'), ...args]);

async function run(command: string, ...args: readonly string[]): Promise<string> {
  const names = ['seed', 'sync'].includes(command) ? ['web'] : [];
  const { exitCode, stdout, stderr } = await failkit(command, ...names, ...args);
  expect(stderr).toBe('');
  expect(exitCode).toBe(0);
  return stdout;
}

async function retained(): Promise<readonly number[]> {
  const { machines } = JSON.parse(await run('points', '--json'));
  return machines[0].points.map(({ point }: { readonly point: number }) => point);
}

const segments = (): number =>
  readdirSync(join(folder, 'bucket'), { recursive: true }).filter((name) =>
    /segments\/\d{16}\/\d{10}$/.test(String(name)),
  ).length;

async function restored(point: number): Promise<Buffer> {
  const to = join(folder, `restored-${point}`);
  await run('restore', 'web', '--point', String(point), '--to', to);
  const bytes = readFileSync(join(to, 'root.raw'));
  rmSync(to, { recursive: true });
  return bytes;
}

it('a trial says what would go and why the others stay, and changes nothing', async () => {
  await run('pin', 'add', 'web', '--point', String(points[1]));
  const shown = await run('prune', 'web', '--dry-run');
  expect(shown).toContain('web  3 points kept, 3 would go');
  expect(shown).toMatch(new RegExp(`${points[0]}  .*would go\\n`));
  expect(shown).toMatch(new RegExp(`${points[1]}  .*pinned\\n`));
  expect(shown).toMatch(new RegExp(`${points[5]}  .*newest, last\\n`));
  expect(await retained()).toEqual(points);
});

it('du says where the bytes are, and what pruning would free', async () => {
  const { machines } = JSON.parse(await run('du', 'web', '--json'));
  expect(machines).toMatchObject([{ machine: 'web', points: 6, unneededBytes: 0 }]);
  expect(machines[0].liveBytes).toBeGreaterThan(0);
  expect(machines[0].historyBytes).toBeGreaterThan(machines[0].liveBytes);
  expect(machines[0].freedByPruneBytes).toBeGreaterThan(0);
  expect(await run('du')).toMatch(
    /machine +points +newest +history +not needed +overhead +a prune frees +in sparse segments\nweb +6 /,
  );
});

it('points are pruned, the rest is swept, and what stays restores byte for byte', async () => {
  const before = segments();
  expect(await run('prune', 'web')).toContain('web  3 points kept, 3 pruned');
  expect(await retained()).toEqual([1, 4, 5].map((i) => points[i]));
  expect(segments()).toBe(before);
  expect(JSON.parse(await run('du', 'web', '--json')).machines[0].unneededBytes).toBeGreaterThan(0);
  expect(await run('sweep', '--dry-run')).toMatch(/ 3 objects, .* would be deleted\n$/);
  expect(segments()).toBe(before);
  expect(await run('sweep')).toMatch(/ 3 objects, .* deleted\n$/);
  expect(segments()).toBe(before - 3);
  expect(await run('sweep')).toMatch(/ 0 objects, 0 B deleted\n$/);
  for (const i of [1, 4, 5]) expect(await restored(points[i] ?? 0)).toEqual(contents[i]);
  await run('verify');
});

it('a point that is held no longer goes with the next prune, and the agent goes on', async () => {
  expect(await run('pin', 'list', 'web')).toMatch(new RegExp(`until\\n +${points[1]}  .*it is removed\\n`));
  expect(await run('pin', 'remove', 'web', String(points[1]))).toBe(`point ${points[1]} of web is held no longer\n`);
  expect(await run('pin', 'list', 'web')).toBe('no point of web is held\n');
  expect(await run('prune', 'web')).toContain('2 points kept, 1 pruned');
  await run('sweep');
  writeFileSync(image, contents[3] ?? '');
  await run('sync');
  const now = await retained();
  expect(await restored(now.at(-1) ?? 0)).toEqual(contents[3]);
  expect(await restored(now[0] ?? 0)).toEqual(contents[4]);
});

it('a group has a retention of its own, which the one of a machine precedes', async () => {
  const dryRun = async (...args: readonly string[]) => {
    const { machines } = JSON.parse(await run('prune', '--dry-run', '--json', ...args));
    return machines.map(({ machine, group, retention }: Record<string, unknown>) => ({ machine, group, retention }));
  };
  const group = 'groups: [{ name: dbs, machines: [web], retention: { last: 1, withinDays: 0.5 } }]';
  configure(`retention: { last: 2 }\n${group}`);
  const ofGroup = { machine: 'web', group: 'dbs', retention: { from: 'group', last: 1, withinDays: 0.5 } };
  expect(await dryRun('web')).toEqual([ofGroup]);
  expect(await dryRun('--group', 'dbs')).toEqual([ofGroup]);
  expect(await run('prune', '--group', 'dbs', '--dry-run')).toContain('retention of group dbs: last 1, withinDays 0.5');
  const refusal = async (...args: readonly string[]) => (await failkit('prune', ...args)).stderr;
  expect(await refusal('--group', 'db')).toContain('the configuration has no group db: did you mean dbs?');
  expect(await refusal('db', '--group', 'dbs')).toContain('machine db is not in group dbs');
  configure(group, ', retention: { last: 4 }');
  expect(await dryRun('--group', 'dbs')).toEqual([
    { machine: 'web', group: 'dbs', retention: { from: 'machine', last: 4 } },
  ]);
  configure('retention: { last: 2 }');
  expect(await dryRun('web')).toEqual([{ machine: 'web', group: null, retention: { from: 'all', last: 2 } }]);
});

it('the root key keeps young points from being pruned, and sweeps from believing a prune', async () => {
  const root = join(folder, 'kit', 'root.key');
  expect(await run('root', 'floor', '--root-key', root, '30')).toBe('retention floor: 30 days\n');
  expect(await run('prune', 'web', '--dry-run')).toContain('web  3 points kept, 0 would go');
  expect(await run('root', 'show')).toContain('retention floor   30 days');
  const { exitCode, stderr } = await failkit('root', 'floor', '--root-key', root, 'many');
  expect({ exitCode, stderr }).toMatchObject({
    exitCode: 2,
    stderr: expect.stringContaining('"many" is no number of days'),
  });
});

it('a thief of the agent key prunes everything, and what is under the floor is listed, restored and held all the same', async () => {
  const before = await retained();
  const config = loadConfig(join(folder, 'failkit.yaml'), {});
  const [agent, target] = [
    await openAgentKey(config),
    await openFilesystemTarget({ directory: join(folder, 'bucket') }),
  ];
  const repo = await openPinnedRepository(config, target, openRepository, noStop);
  const choose = async ({ state }: Chain) => [...state.points.keys()].slice(0, -1);
  for await (const machineId of listMachineIds(target, noStop))
    await prunePoints(repo, machineId, { agent, now: Date.now, choose }, noStop);
  await run('sweep');

  const listed = await run('points', 'web');
  const lines = listed.split('\n').filter((line) => line.includes("pruned, kept by the root key's floor until"));
  expect(lines.length).toBe(before.length - 1);
  const { machines } = JSON.parse(await run('points', '--json'));
  expect(machines[0].points.map(({ point }: { readonly point: number }) => point)).toEqual(before);
  expect(machines[0].points[0].pruned).toEqual({ keptBy: 'floor', until: expect.stringMatching(/^20\d\d-/) });
  expect(machines[0].points.at(-1).pruned).toBeUndefined();
  for (const point of before) {
    const whole = await restored(point);
    expect([4, 5, 3].some((i) => contents[i]?.equals(whole))).toBe(true);
  }
  expect(await run('verify', '--level', 'full', '--point', String(before[0]))).toContain(`points whole: ${before[0]}`);
  expect(await run('pin', 'add', 'web', '--point', String(before[0]))).toContain(`point ${before[0]} of web is held`);

  // Without the floor the pin holds that one, and the other goes.
  await run('root', 'floor', '--root-key', join(folder, 'kit', 'root.key'), '0');
  await run('sweep');
  expect(await retained()).toEqual([before[0], before.at(-1)]);
  expect(contents[4]?.equals(await restored(before[0] ?? 0))).toBe(true);
  const { exitCode, stderr } = await failkit(
    'restore',
    'web',
    '--point',
    String(before[1]),
    '--to',
    join(folder, 'gone'),
  );
  expect(exitCode).toBeGreaterThan(0);
  expect(stderr).toContain(`has no recovery point ${before[1]}`);
  await run('pin', 'remove', 'web', String(before[0]));
});

it('what can not be meant is refused', async () => {
  const refusal = async (...args: readonly string[]) => {
    const { exitCode, stderr } = await failkit(...args);
    expect(exitCode).toBeGreaterThan(0);
    return stderr;
  };
  expect(await refusal('pin', 'add', 'web', '--point', '9999')).toContain('machine web has no recovery point 9999');
  expect(await refusal('pin', 'add', 'web', '--for', 'ever')).toContain('give a duration such as 12h or 30d');
  expect(await refusal('sweep', 'nobody')).toContain('this host does not know the id of nobody');
  configure('');
  expect(await refusal('prune')).toContain('retention: is missing: web keeps all of its points');
  configure('retention: {}');
  expect(await refusal('prune')).toContain('keeps nothing: say what to keep');
});
