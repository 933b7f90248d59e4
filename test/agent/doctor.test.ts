import { randomBytes } from 'node:crypto';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stripVTControlCharacters } from 'node:util';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { loadConfig } from '../../agent/config/load-config.ts';
import type { Finding } from '../../agent/doctor/finding.ts';
import { checkGenerate, checkUnwrap } from '../../agent/doctor/key-checks.ts';
import { checkClock, checkLock } from '../../agent/doctor/store-checks.ts';
import { KeyRefused, KeyServiceUnavailable } from '../../crypto/errors.ts';
import type { KeyProvider } from '../../crypto/key-provider.ts';
import { createLocalKeyFile, openLocalKey } from '../../crypto/local-key.ts';
import type { BucketLock } from '../../storage-targets/bucket-lock.ts';
import { MemoryStore, openMemoryTarget } from '../fakes/memory-target.ts';
import { failkitHere } from './in-process.ts';

const template = mkdtempSync(join(tmpdir(), 'failkit-doctor-'));
const never = new AbortController().signal;
let folder: string;
let configFile: string;

const settings = {
  repository: { target: 'filesystem', directory: 'bucket' },
  keys: { provider: 'local-key', file: 'local.key' },
  state: 'state',
  machines: ['web', 'db'].map((name) => ({
    name,
    source: { type: 'image', disks: [{ label: 'root', path: `${name}.raw` }] },
  })),
};

beforeAll(async () => {
  use(template);
  for (const name of ['web', 'db']) writeFileSync(join(folder, `${name}.raw`), randomBytes(100_000));
  configure({});
  expect((await failkit('init', '--kit', join(folder, 'kit'))).exitCode).toBe(0);
});
let copies = 0;
beforeEach(() => {
  copies += 1;
  use(join(template, `copy-${copies}`));
  for (const name of ['bucket', 'kit', 'state', 'local.key', 'web.raw', 'db.raw'])
    cpSync(join(template, name), join(folder, name), { recursive: true });
  chmodSync(join(folder, 'state'), 0o700);
  const longAgo = new Date(Date.now() - 3_600_000);
  for (const name of ['web', 'db']) utimesSync(join(folder, `${name}.raw`), longAgo, longAgo);
  configure({});
});
afterAll(() => rmSync(template, { recursive: true }));

describe('failkit doctor', () => {
  it('finds nothing where all is well, local checks first', async () => {
    const { exitCode, findings } = await doctor();
    expect(findings.map(({ check, outcome }) => `${outcome} ${check}`)).toEqual(
      [
        ...['node', 'configuration', 'memory', 'machine web', 'machine db', 'state folder', 'agent key', 'key file'],
        ...['store', 'clock', 'repository', 'puts', 'certificate', 'data keys', 'unwrapping'],
      ].map((check) => `ok ${check}`),
    );
    expect(exitCode).toBe(0);
  });

  it('doubts a raw disk that begins as an image of another format does', async () => {
    const image = Buffer.alloc(100_000);
    image.write('QFI\xfb', 'latin1');
    writeFileSync(join(folder, 'web.raw'), image);
    const longAgo = new Date(Date.now() - 3_600_000);
    utimesSync(join(folder, 'web.raw'), longAgo, longAgo);
    const { exitCode, findings } = await doctor();
    expect(findings.find(({ check }) => check === 'machine web')).toMatchObject({
      outcome: 'warning',
      what: 'root begins as a qcow2 image does, and is taken for raw bytes',
      fix: expect.stringContaining('format'),
    });
    expect(exitCode).toBe(0);
  });

  it('leaves nothing behind but the name that every run tries', async () => {
    await doctor();
    const before = tree();
    await doctor();
    expect(tree()).toEqual(before);
    expect(before.filter((path) => path.startsWith('bucket/probe/')).length).toBe(11);
  });

  it('makes nothing on a host that was never set up', async () => {
    for (const name of ['state', 'local.key']) rmSync(join(folder, name), { recursive: true });
    rmSync(join(folder, 'bucket'), { recursive: true });
    cpSync(join(template, 'kit'), join(folder, 'bucket'), { recursive: true });
    configure({
      rootFingerprint: /fk-root-[a-z0-9-]+/.exec(readFileSync(join(folder, 'kit', 'restore.yaml'), 'utf8'))?.[0],
    });
    const before = tree();
    const { exitCode, findings } = await doctor();
    expect(tree()).toEqual(before);
    expect(findings).toMatchObject([
      ...Array(5).fill({ outcome: 'ok' }),
      { check: 'state folder', outcome: 'ok', what: expect.stringContaining('is not there yet') },
      { check: 'agent key', outcome: 'skipped', what: expect.stringContaining('needs failkit init') },
      { check: 'key file', outcome: 'skipped' },
      ...['store', 'clock'].map((check) => ({ check, outcome: 'ok' })),
      {
        check: 'repository',
        outcome: 'failed',
        code: 'REPOSITORY_NOT_FOUND',
        fix: expect.stringContaining('failkit init'),
      },
      ...['puts', 'certificate', 'data keys'].map((check) => ({ check, outcome: 'skipped' })),
    ]);
    expect(exitCode).toBe(6);
  });

  const broken: readonly (readonly [string, () => void, Partial<Finding>, number])[] = [
    [
      'an invalid configuration',
      () => configure({ machine: [] }),
      { check: 'configuration', code: 'CONFIG_INVALID' },
      2,
    ],
    ['a missing disk', () => rmSync(join(folder, 'web.raw')), { check: 'machine web', code: 'SOURCE_NOT_FOUND' }, 3],
    [
      'no store',
      () => rmSync(join(folder, 'bucket'), { recursive: true }),
      { check: 'store', code: 'BUCKET_NOT_FOUND' },
      4,
    ],
    [
      'an agent key that others can read',
      () => chmodSync(join(folder, 'state', 'agent.key'), 0o644),
      { check: 'agent key' },
      5,
    ],
    ['a key file that others can read', () => chmodSync(join(folder, 'local.key'), 0o640), { check: 'key file' }, 5],
    [
      'another root key',
      () => configure({ rootFingerprint: 'fk-root-pesz-ttp2-cfl6-mdcy-zl5g-2xlv-obth-zmgi' }),
      { check: 'repository', code: 'ROOT_MISMATCH' },
      6,
    ],
    [
      'a state folder that is a file',
      () => replaceByFile('state'),
      { check: 'state folder', code: 'STATE_UNUSABLE' },
      6,
    ],
  ];
  it.each(broken)('names %s, says what to do, and looks at the rest', async (_title, hurt, wanted, exit) => {
    hurt();
    const { exitCode, findings } = await doctor();
    const failed = findings.filter(({ outcome }) => outcome === 'failed');
    expect(failed).toContainEqual(expect.objectContaining(wanted));
    for (const { fix } of failed) expect(fix).toMatch(/\w{3}/);
    expect(exitCode).toBe(exit);
    if (wanted.check !== 'configuration') expect(findings.length).toBeGreaterThan(12);
  });

  const doubtful: readonly (readonly [string, () => void, Partial<Finding>])[] = [
    ['a configuration that others may change', () => chmodSync(configFile, 0o666), { check: 'configuration' }],
    ['a state folder that is open', () => chmodSync(join(folder, 'state'), 0o755), { check: 'state folder' }],
    ['too little memory', () => configure({ limits: { memoryMiB: 128 } }), { check: 'memory' }],
    ['more memory than there is', () => configure({ limits: { memoryMiB: 65536, workers: 1 } }), { check: 'memory' }],
    ['write-only with a key file', () => configure({ access: 'write-only' }), { check: 'unwrapping' }],
    [
      'a disk that was written just now',
      () => utimesSync(join(folder, 'web.raw'), new Date(), new Date()),
      { check: 'machine web' },
    ],
  ];
  it.each(doubtful)('warns of %s, and still ends with 0', async (_title, change, wanted) => {
    change();
    const { exitCode, findings } = await doctor();
    expect(findings.filter(({ outcome }) => outcome === 'warning')).toEqual([expect.objectContaining(wanted)]);
    expect(exitCode).toBe(0);
  });

  it('mends nothing by itself', async () => {
    chmodSync(join(folder, 'state'), 0o755);
    await doctor();
    expect(statSync(join(folder, 'state')).mode & 0o777).toBe(0o755);
  });

  it('says that a key is not certified, and that it was revoked', async () => {
    const own = join(folder, 'state', 'agent.key');
    rmSync(own);
    await failkit('root', 'request', join(folder, 'request'));
    const uncertified = await doctor();
    expect(uncertified.exitCode).toBe(6);
    expect(uncertified.findings).toContainEqual(
      expect.objectContaining({
        check: 'certificate',
        code: 'AGENT_NOT_TRUSTED',
        fix: expect.stringContaining('root certify'),
      }),
    );
    const rootKey = ['--root-key', join(folder, 'kit', 'root.key')];
    await failkit('root', 'certify', ...rootKey, join(folder, 'request'));
    expect((await doctor()).exitCode).toBe(0);
    const shown = JSON.parse((await failkit('root', 'show', '--json')).stdout) as {
      agents: { keyId: string; thisHost: boolean }[];
    };
    await failkit('root', 'revoke', shown.agents.find(({ thisHost }) => thisHost)?.keyId ?? '', ...rootKey);
    const revoked = await doctor();
    expect(revoked.findings.find(({ check }) => check === 'certificate')?.what).toContain('was revoked');
  });

  it('knows a host that only reads', async () => {
    configure({ keys: { provider: 'recovery-key', file: 'kit/recovery.key' }, machines: [] });
    renameSync(join(folder, 'kit', recoveryKeyIn(folder)), join(folder, 'kit', 'recovery.key'));
    const { exitCode, findings } = await doctor();
    expect(exitCode).toBe(0);
    expect(findings.slice(-3)).toMatchObject([
      { check: 'repository', outcome: 'ok' },
      { check: 'puts', outcome: 'skipped' },
      { check: 'recovery key', outcome: 'ok' },
    ]);
    expect(existsSync(join(folder, 'bucket', 'probe', 'fixed'))).toBe(false);
  });

  it('shows a person one aligned line for each finding, its remedy below it, and the sum', async () => {
    rmSync(join(folder, 'web.raw'));
    const { stdout } = await failkit('doctor');
    const lines = stdout.trimEnd().split('\n');
    expect(lines[0]).toMatch(/^ok {7}node {11}\d/);
    expect(lines[3]).toMatch(/^failed {3}machine web {4}disk root of machine web: /);
    expect(lines[4]).toMatch(/^ {24}what to do: /);
    expect(lines.at(-1)).toBe('1 failed, 14 ok');
  });
});

it('says of many machines only which are not well', async () => {
  const machines = Array.from({ length: 10 }, (_, i) => ({ ...settings.machines[0], name: `web-${i}` }));
  const lost = { name: 'lost', source: { type: 'image', disks: [{ label: 'root', path: 'lost.raw' }] } };
  configure({ machines: [...machines, lost] });
  const { stdout } = await failkit('doctor');
  expect(stdout).toMatch(/^ok {7}machines {7}10 can be read, and are not in use\nfailed {3}machine lost {3}disk root/m);
  expect(stdout).not.toContain('web-');
});

describe('on a terminal', () => {
  it.each([80, 120])('of %i columns nothing is wrapped by the terminal, and colours are on', async (columns) => {
    rmSync(join(folder, 'web.raw'));
    chmodSync(join(folder, 'state'), 0o755);
    const { stdout } = await failkitHere(['--config', configFile, 'doctor'], { columns });
    expect(stdout).toContain('\x1b[31mfailed');
    const lines = stripVTControlCharacters(stdout).split('\n');
    const tooLong = lines.filter((line) => line.length > columns);
    // A path is never broken.
    expect(tooLong.filter((line) => !line.includes(folder))).toEqual([]);
    const remedies = lines.filter((line) => line.includes('what to do:'));
    expect(remedies.map((line) => line.indexOf('what to do:'))).toEqual([24, 24]);
    expect(lines.join(' ').replace(/\s+/g, ' ')).toContain('each run does it, too. Think about who read it until now');
  });
});

describe('single checks', () => {
  const clockOff = (ms: number) => ({
    ...openMemoryTarget(new MemoryStore()),
    now: async () => new Date(Date.now() - ms),
  });

  it('judges the clock as runs do', async () => {
    expect(await checkClock(clockOff(30_000), never)).toMatchObject({ outcome: 'ok' });
    const ahead = await checkClock(clockOff(120_000), never);
    expect(ahead).toMatchObject({ outcome: 'warning', what: expect.stringContaining('2 min 00 s ahead of') });
    expect((await checkClock(clockOff(-120_000), never)).what).toContain('behind');
    await expect(checkClock(clockOff(600_000), never)).rejects.toMatchObject({ code: 'CLOCK_SKEWED' });
  });

  it('says of object lock what is in the way, the worst first, and how to turn it on', () => {
    const target = openMemoryTarget(new MemoryStore());
    const lock = {
      feature: 'object retention',
      enabled: true,
      enabling: 'make another bucket',
      hasDefaultRetention: false,
      archives: [],
      deletesOld: false,
    } as const;
    const said = (more: Partial<BucketLock>) => JSON.stringify(checkLock({ ...lock, ...more }, target));
    expect(said({})).toMatch(/no rule that is in the way/);
    expect(said({ archives: null })).toMatch(/rules may not be read from here/);
    expect(said({ archives: ['Archive'] })).toMatch(/Archive: a restore then waits for hours/);
    expect(said({ deletesOld: true })).toMatch(/may be part of the newest point/);
    expect(said({ hasDefaultRetention: true, deletesOld: true })).toMatch(/has a default retention/);
    expect(said({ enabled: null })).toMatch(/may not be asked from here.*make another bucket/);
    expect(() => said({ enabled: false })).toThrow(/asks for it: make another bucket/);
  });

  it('wants unwrapping to be refused where access is write-only', async () => {
    await createLocalKeyFile(join(folder, 'other.key'));
    const opens = await openLocalKey(join(folder, 'other.key'));
    const tried = (await checkGenerate(opens, null, never)).value;
    configure({ access: 'write-only', keys: { provider: 'aws-kms', keyId: 'k', region: 'r' } });
    const config = loadConfig(configFile, {});
    const throwing = (error: Error): KeyProvider => ({ ...opens, unwrap: () => Promise.reject(error) });
    expect(await checkUnwrap(throwing(new KeyRefused('no')), tried, config, never)).toMatchObject({ outcome: 'ok' });
    expect(await checkUnwrap(opens, tried, config, never)).toMatchObject({
      outcome: 'warning',
      fix: expect.stringContaining('kms:Decrypt'),
    });
    await expect(checkUnwrap(throwing(new KeyServiceUnavailable('away')), tried, config, never)).rejects.toThrow(
      'away',
    );
    const full = { ...config, access: 'full' as const };
    await expect(checkUnwrap(throwing(new KeyRefused('no')), tried, full, never)).rejects.toThrow('no');
  });
});

function use(path: string): void {
  folder = path;
  configFile = join(folder, 'failkit.yaml');
}

function configure(changes: object): void {
  writeFileSync(configFile, stringify({ ...settings, ...changes }));
}

async function doctor(): Promise<{ readonly exitCode: number; readonly findings: readonly Finding[] }> {
  const { exitCode, stdout } = await failkit('doctor', '--json');
  return { exitCode, findings: (JSON.parse(stdout) as { findings: Finding[] }).findings };
}

function failkit(...args: string[]) {
  return failkitHere(['--config', configFile, ...args]);
}

function tree(): readonly string[] {
  // Where a put is written before it gets its name; opening the store makes it.
  return readdirSync(folder, { recursive: true })
    .map(String)
    .filter((path) => !path.endsWith('.incoming~'))
    .sort();
}

function replaceByFile(name: string): void {
  rmSync(join(folder, name), { recursive: true });
  writeFileSync(join(folder, name), '');
  configure({ rootFingerprint: null });
}

function recoveryKeyIn(of: string): string {
  return readdirSync(join(of, 'kit')).find((name) => name.startsWith('recovery') && !name.endsWith('.yaml')) ?? '';
}
