import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { checksFor, inOrder, parseCheck } from '../../../agent/drill/drill-options.ts';
import { listensOn } from '../../../drill/guest-checks.ts';
import { writeImageMachines } from '../image-machines.ts';
import { failkitHere } from '../in-process.ts';

test.for([
  ['port=22', null, { kind: 'port', port: 22 }],
  ['db: main:port=5432', 'db: main', { kind: 'port', port: 5432 }],
  ['command=echo a:port=1', null, { kind: 'command', command: 'echo a:port=1' }],
  ['web:command=test "$(id -u)" = 0', 'web', { kind: 'command', command: 'test "$(id -u)" = 0' }],
] as const)('--check %s', ([text, machine, check]) => {
  expect(parseCheck(text)).toEqual([{ machine, check }]);
});

test.for(['port=0', 'port=65536', 'port=ssh', 'command= ', 'ping', ':port=1', ''])('--check %s is refused', (text) => {
  expect(() => parseCheck(text)).toThrow('give port=22 or command=');
});

test('a check of one machine is for that one', () => {
  const checks = [...parseCheck('port=22'), ...parseCheck('web:port=80')];
  expect(checksFor('web', checks, ['web', 'db'])).toHaveLength(2);
  expect(checksFor('db', checks, ['web', 'db'])).toEqual([{ kind: 'port', port: 22 }]);
  expect(() => checksFor('db', checks, ['db'])).toThrow('--check is for web, which is not drilled; there is db');
});

test('the declared order comes first, the others follow', () => {
  expect(inOrder(['web', 'db', 'mail'], 'db, mail')).toEqual(['db', 'mail', 'web']);
  expect(() => inOrder(['web'], 'db')).toThrow('--order names db');
  expect(() => inOrder(['web', 'db'], 'db,db')).toThrow('twice');
  expect(() => inOrder(['web'], '')).toThrow('--order names nothing');
  expect(() =>
    inOrder(
      Array.from({ length: 17 }, (_, index) => `m${index}`),
      undefined,
    ),
  ).toThrow('at most 16');
});

test("a port is open when the guest's own list has a listener", () => {
  const table = `  sl  local_address rem_address   st tx_queue
   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000
   1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000`;
  expect(listensOn(table, 22)).toBe(true);
  expect(listensOn(table, 8080)).toBe(false);
  expect(listensOn('', 22)).toBe(false);
});

describe('wrong input', () => {
  let folder = '';
  const before = process.cwd();
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'failkit-drill-input-'));
    writeImageMachines(folder, ['web', 'db']);
    process.chdir(folder);
    for (const args of [['init', '--kit', 'kit'], ['seed']]) expect((await failkitHere(args)).exitCode).toBe(0);
    await writeFile('file', '');
  });
  afterAll(async () => {
    process.chdir(before);
    await rm(folder, { recursive: true });
  });

  test('a machine by its name and by its id is refused', async () => {
    const { stdout } = await failkitHere(['verify', 'web', '--json']);
    const [{ machineId }] = JSON.parse(stdout).machines;
    const outcome = await failkitHere(['drill', '--local', 'web', machineId]);
    expect(outcome).toMatchObject({ exitCode: 2, stderr: expect.stringContaining('is named twice') });
  });

  test.for([
    [[], 2, "required option '--local' not specified"],
    [['--local', '--memory-mib', '0'], 2, 'from 64 to'],
    [['--local', '--timeout', 'soon'], 2, '300, 90s or 10min'],
    [['--local', '--firmware', 'coreboot'], 2, 'Allowed choices are auto, bios, uefi'],
    [['--local', '--check', 'port=x'], 2, 'give port=22'],
    [['--local', '--check', 'port=22', '--reach', 'kernel'], 2, 'which --reach kernel does not wait for'],
    [['--local', '--order', 'mail'], 2, '--order names mail, which is not drilled; there is web, db'],
    [['--local', '--check', 'mail:port=25'], 2, '--check is for mail'],
    [['--local', 'mail'], 6, 'no replica of a machine named mail'],
    [['--local', '--point', 'noon'], 2, 'is no point'],
    [['--local', '--evidence', '.'], 8, 'holds something already'],
    [['--local', '--evidence', 'file/x'], 3, "can't be written"],
    [['--local', '--evidence', 'e', '--work', 'file/x'], 3, "can't be written"],
  ] as const)('%s', async ([args, exitCode, message]) => {
    const outcome = await failkitHere(['drill', ...args]);
    expect(outcome.stderr.replace(/\s+/g, ' ')).toContain(message);
    expect(outcome.exitCode).toBe(exitCode);
    expect(outcome.stderr).not.toMatch(/^ +at /m);
    expect((await readdir(folder)).filter((name) => name.startsWith('failkit-drill-') || name === 'e')).toEqual([]);
  });
});
