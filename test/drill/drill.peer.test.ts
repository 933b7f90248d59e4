import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmod, mkdir, open, readdir, readFile, rmdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { DrillResult, MachineResult } from '../../drill/drill.ts';
import { openWorkFolder } from '../../drill/work-folder.ts';
import { type DrilledMachine, type DrillSite, drillNeeds, openDrillSite, processesNaming } from './drilled-machines.ts';

const needs = await drillNeeds();
const described = needs === null ? '' : ` (${needs})`;
const waitMs = 120_000;

describe.skipIf(needs !== null)(`failkit drill --local${described}`, () => {
  let site: DrillSite;
  let work = '';
  let drills = 0;
  beforeAll(async () => {
    site = await openDrillSite([
      'good',
      'second',
      'no-boot-sector',
      'no-root',
      'garbage-kernel',
      'panics',
      'hangs',
      'uefi',
    ]);
    work = join(site.folder, 'work');
    await mkdir(work);
  });
  afterAll(() => site[Symbol.asyncDispose]());

  /** Afterwards nothing of it may be left, whatever it came to. */
  async function drill(
    args: readonly string[],
  ): Promise<{ exitCode: number; result: DrillResult; evidence: string; stderr: string }> {
    const evidence = join(site.folder, `evidence-${++drills}`);
    const own = join(work, `of-${drills}`);
    await mkdir(own);
    const options = ['--local', '--json', '--work', own, '--evidence', evidence, '--memory-mib', '256', ...args];
    const outcome = await site.failkit('drill', ...options);
    expect(await readdir(own)).toEqual([]);
    expect(await processesNaming(`${own}/`)).toEqual([]);
    await rmdir(own);
    return { exitCode: outcome.exitCode, result: outcome.json<DrillResult>(), evidence, stderr: outcome.stderr };
  }

  async function drillOne(
    machine: DrilledMachine,
    ...args: string[]
  ): Promise<{ exitCode: number; one: MachineResult; evidence: string }> {
    const { exitCode, result, evidence } = await drill([machine, ...args]);
    expect(result).toMatchObject({ sourceUntouched: true, cleanedUp: true });
    const [one] = result.machines;
    if (one === undefined) throw new Error('no machine');
    return { exitCode, one, evidence };
  }

  test('a machine that works passes, and what it showed is kept', async () => {
    const bucket = await fingerprint(join(site.folder, 'bucket'));
    const { exitCode, one, evidence } = await drillOne(
      'good',
      '--check',
      'command=cat /boots',
      '--check',
      'good:command=test -w /',
    );
    expect(one.findings).toEqual([]);
    expect(exitCode).toBe(0);
    expect(one).toMatchObject({
      machine: 'good',
      outcome: 'passed',
      firmware: 'bios',
      consistency: 'crash-consistent',
    });
    expect(one.checks.map(({ check, outcome }) => `${check} ${outcome}`)).toEqual([
      ...['power passed', 'firmware passed', 'kernel passed', 'agent passed', 'screenshot passed'],
      ...['command cat /boots passed', 'command test -w / passed'],
    ]);
    expect(one.checks.at(-2)?.what).toBe('exit code 0: 1');
    expect(one.phases.map(({ phase }) => phase)).toEqual([
      'open',
      'disks',
      'power',
      'firmware',
      'kernel',
      'agent',
      'checks',
    ]);
    expect(one.phases.reduce((sum, { tookMs }) => sum + tookMs, 0)).toBe(one.rtoMs);
    expect(one.guest).toMatchObject({ os: { 'pretty-name': 'Failkit test guest' } });
    // Only what the boot reads is fetched.
    expect(one.fetchedBytes).toBeGreaterThan(2 ** 20);
    expect(await fingerprint(join(site.folder, 'bucket'))).toBe(bucket);

    const seen = (name: string) => readFile(join(evidence, name));
    expect((await seen('good/screenshot.png')).subarray(1, 4).toString()).toBe('PNG');
    expect(String(await seen('good/serial.log'))).toMatch(/Linux version/);
    expect(String(await seen('good/firmware.log'))).toMatch(/SeaBIOS/);
    expect(String(await seen('good/command-1.txt'))).toBe('1\n');
    expect(JSON.parse(String(await seen('result.json')))).toMatchObject({ outcome: 'passed', machines: [one] });
    const summary = String(await seen('summary.txt'));
    expect(summary).toMatch(/^Drill of one machine: PASSED/);
    expect(summary).toMatch(/untouched[\s\S]*is gone/);
    expect((await stat(evidence)).mode & 0o077).toBe(0);
    const { stdout } = await promisify(execFile)('sha256sum', ['-c', 'SHA256SUMS'], { cwd: evidence });
    expect(stdout.split('\n').filter((line) => line.endsWith(': OK')).length).toBe(8);
  });

  test('restored disks serve as well, and stay what they are', async () => {
    const { exitCode, one } = await drillOne('good', '--from', 'restored', '--reach', 'kernel');
    expect(one.findings).toEqual([]);
    expect(exitCode).toBe(0);
    expect(one.checks.map(({ check }) => check)).toEqual(['power', 'firmware', 'kernel', 'screenshot']);
  });

  test('a machine for UEFI is known by its disk', async () => {
    const { exitCode, one } = await drillOne('uefi');
    expect(one.findings).toEqual([]);
    expect(one.firmware).toBe('uefi');
    expect(exitCode).toBe(0);
  });

  const failing = [
    ['no-boot-sector', 'NO_BOOTABLE_DEVICE', /No bootable device/, 'power', 300],
    ['no-root', 'ROOT_NOT_MOUNTED', /Failed to mount \/dev\/vda2/, 'kernel', 300],
    ['panics', 'KERNEL_PANIC', /Attempted to kill init/, 'kernel', 300],
  ] as const;
  const late = [
    ['garbage-kernel', 'KERNEL_SILENT', /neither a kernel/, 'firmware', 45],
    ['hangs', 'AGENT_SILENT', /the boot hangs/, 'kernel', 90],
  ] as const;
  async function failsTheDrill([machine, code, what, reached, timeout]:
    | (typeof failing)[number]
    | (typeof late)[number]): Promise<void> {
    const { exitCode, one, evidence } = await drillOne(machine, '--timeout', `${timeout}`);
    expect(one.findings).toEqual([{ code, what: expect.stringMatching(what) }]);
    expect(exitCode).toBe(9);
    expect(one.rtoMs).toBeNull();
    const passed = one.checks.filter(({ check, outcome }) => outcome === 'passed' && check !== 'screenshot');
    expect(passed.at(-1)?.check).toBe(reached);
    expect((await readFile(join(evidence, machine, 'screenshot.png'))).subarray(1, 4).toString()).toBe('PNG');
    expect(String(await readFile(join(evidence, 'summary.txt')))).toContain(code);
  }
  test.for(failing)('%s fails the drill: %s', failsTheDrill);

  // At one time, for they wait for what does not come; only one of them boots a kernel, whose timer fails on too busy a machine.
  test.concurrent.for(late)('%s fails the drill: %s', failsTheDrill);
  test('what has to listen and does not, and a command that fails, fail the drill', async () => {
    const { exitCode, one } = await drillOne('good', '--check', 'port=22', '--check', 'command=exit 3');
    expect(one.findings.map(({ code, what }) => `${code} ${what}`)).toEqual([
      'PORT_CLOSED port 22: nothing listens',
      'COMMAND_FAILED command exit 3: exit code 3',
    ]);
    expect(exitCode).toBe(9);
  });

  test('UEFI that finds nothing to start says so', async () => {
    const { exitCode, one } = await drillOne('no-boot-sector', '--firmware', 'uefi', '--timeout', '300');
    expect(one.findings.map(({ code }) => code)).toEqual(['NO_BOOTABLE_DEVICE']);
    expect(exitCode).toBe(9);
  });

  test('machines of one drill reach each other on the isolated network, in the declared order', async () => {
    const address = (host: number): string => `ip addr add 10.9.8.${host}/24 dev eth0 || true; ip link set eth0 up`;
    const { exitCode, result } = await drill([
      ...['good', 'second', '--order', 'second', '--network', 'isolated'],
      ...['--check', `second:command=${address(1)}; nc -l -p 80 -e cat >/dev/null 2>&1 &`, '--check', 'second:port=80'],
      ...['--check', `good:command=${address(2)}; ping -c 1 -W 5 10.9.8.1`],
    ]);
    expect(result.machines.map(({ machine, findings }) => ({ machine, findings }))).toEqual([
      { machine: 'second', findings: [] },
      { machine: 'good', findings: [] },
    ]);
    expect(exitCode).toBe(0);
  });

  test('a machine that ends after it had got there fails the drill', async () => {
    const soon = '(sleep 4; poweroff -f) >/dev/null 2>&1 &';
    const { exitCode, result } = await drill([
      ...['good', 'second', '--order', 'second,good', '--check', `second:command=${soon}`],
    ]);
    expect(result.machines.map(({ machine, findings }) => [machine, ...findings.map(({ code }) => code)])).toEqual([
      ['second', 'MACHINE_ENDED'],
      ['good'],
    ]);
    expect(exitCode).toBe(9);
  });

  test('a restored disk that somebody writes to during the drill is noticed', async () => {
    const running = drill(['good', '--from', 'restored']);
    const disk = await appears(work, /\.raw$/);
    await appears(work, /^qmp$/);
    await chmod(disk, 0o600);
    const file = await open(disk, 'r+');
    await file.write(Buffer.of(1), 0, 1, 95 * 2 ** 20);
    await file.close();
    const { exitCode, result } = await running;
    expect(result.machines[0]?.findings.map(({ code }) => code)).toEqual(['SOURCE_WRITTEN']);
    expect(result.sourceUntouched).toBe(false);
    expect(exitCode).toBe(9);
  });

  test('damage that the boot meets is named', async () => {
    await site.damage('second');
    const served = await drillOne('second', '--timeout', '60');
    expect(served.one.findings[0]).toEqual({
      code: 'POINT_DAMAGED',
      what: expect.stringMatching(/^disk root: blocks/),
    });
    const restored = await drillOne('second', '--from', 'restored');
    expect(restored.one.findings.map(({ code }) => code)).toEqual(['POINT_UNUSABLE']);
    expect([served.exitCode, restored.exitCode]).toEqual([9, 9]);
  });

  test.for(['SIGINT', 'SIGKILL'] as const)('%s in the middle leaves no machine running', async (signal) => {
    const evidence = join(site.folder, `evidence-${++drills}`);
    const options = ['--local', 'hangs', '--work', work, '--evidence', evidence, '--timeout', '600'];
    const running = site.start('drill', ...options);
    await until(async () =>
      /Linux version/.test(String(await readFile(join(evidence, 'hangs/serial.log')).catch(() => ''))),
    );
    expect((await processesNaming(`${work}/`)).length).toBeGreaterThan(0);
    // What the machine writes has no name any more.
    const entries = await readdir(work, { recursive: true, withFileTypes: true });
    expect(entries.filter((entry) => entry.isFile())).toEqual([]);
    running.kill(signal);
    const { exitCode, stderr } = await running.ended;
    await until(async () => (await processesNaming(`${work}/`)).length === 0);
    if (signal === 'SIGINT') expect(exitCode, stderr).toBe(130);
    else {
      // The next drill removes what is left of one that was killed.
      expect((await readdir(work)).length).toBe(1);
      await (await openWorkFolder(work)).remove();
    }
    expect(await readdir(work)).toEqual([]);
  });
});

/** Of names, sizes and contents. */
async function fingerprint(folder: string): Promise<string> {
  const hash = createHash('sha256');
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  for (const path of entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .sort())
    hash.update(path).update(await readFile(path));
  return hash.digest('hex');
}

async function appears(folder: string, name: RegExp): Promise<string> {
  let path = '';
  await until(async () => {
    const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => []);
    const found = entries.find((entry) => name.test(entry.name));
    if (found !== undefined) path = join(found.parentPath, found.name);
    return found !== undefined;
  });
  return path;
}

async function until(isSo: () => Promise<boolean>): Promise<void> {
  for (const end = performance.now() + waitMs; !(await isSo()); await sleep(50))
    if (performance.now() > end) throw new Error('it never came to that');
}
