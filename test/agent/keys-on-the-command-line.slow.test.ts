import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createKeyFile } from '../../crypto/key-file.ts';
import { createLocalKeyFile } from '../../crypto/local-key.ts';
import { ecdsaP384 } from '../../crypto/signature-algorithms.ts';
import { SigningKey } from '../../crypto/signing.ts';
import { failkitHere, type InProcess } from './in-process.ts';

/** What an operator does about the keys of a repository that exists. */

const folder = mkdtempSync(join(tmpdir(), 'failkit-keys-'));
const file = (name: string) => join(folder, name);
const image = file('web.raw');
const content = (run: number) => Buffer.alloc(300_000, `what the disk held at the time of run ${run} `);

beforeAll(async () => {
  configure('failkit.yaml', 'first.key');
  configure('second.yaml', 'second.key');
  writeFileSync(image, content(1));
  await run('init', '--kit', file('kit'));
  await run('seed');
});
afterAll(() => rmSync(folder, { recursive: true }));

function configure(name: string, keyFile: string): void {
  writeFileSync(
    file(name),
    `repository: { target: filesystem, directory: bucket }
keys: { provider: local-key, file: ${keyFile} }
state: state
machines:
  - { name: web, source: { type: image, disks: [{ label: root, path: web.raw }] }, whenChanging: mark-inconsistent }
`,
  );
}

const failkit = (...args: readonly string[]): Promise<InProcess> =>
  failkitHere(['--config', file('failkit.yaml'), ...args]);

async function run(...args: readonly string[]): Promise<string> {
  const { exitCode, stdout, stderr } = await failkit(...args);
  expect(exitCode, stderr).toBe(0);
  return stdout;
}

interface Listed {
  readonly epoch: number;
  readonly revision: number;
  readonly begunTime: string;
  readonly wraps: readonly { readonly provider: string; readonly keyId: string }[];
}

async function listed(): Promise<readonly Listed[]> {
  return JSON.parse(await run('keys', 'list', '--json')).machines[0].epochs;
}

async function restored(...args: readonly string[]): Promise<Buffer> {
  const to = file(`out-${readdirSync(folder).length}`);
  await run('restore', 'web', '--to', to, ...args);
  return readFileSync(join(to, 'root.raw'));
}

const segments = (): number =>
  readdirSync(file('bucket'), { recursive: true }).filter((name) => /segments\/\d{16}\/\d{10}$/.test(String(name)))
    .length;

it('lists who opens each data key', async () => {
  const [only] = await listed();
  expect(only).toMatchObject({ epoch: 1, revision: 0 });
  expect(only?.wraps.map(({ provider }) => provider)).toEqual(['local-key', 'recovery-key']);
  expect(await run('keys', 'list', 'web')).toMatch(/web +1 .* local-key local:[0-9a-f]{16}/);
});

it('proves that the kit opens every data key, and says which do not open with another', async () => {
  expect(await run('keys', 'test-recovery', '--recovery-key', file('kit/recovery.key'))).toMatch(
    /opens 1 of 1 data key/,
  );
  await run('root', 'replace', '--root-key', file('kit/root.key'), '--kit', file('kit-2'));
  const other = await failkit('keys', 'test-recovery', '--recovery-key', file('kit-2/recovery.key'));
  expect(other.exitCode).toBe(5);
  expect(other.stdout).toMatch(/opens 0 of 1 data key[\s\S]*web, epoch 1: .*use the kit of recovery:/);
});

it('wraps for the recovery key in force without moving a byte, and does nothing the second time', async () => {
  const before = segments();
  expect(await run('keys', 'rewrap')).toMatch(/^1 data key wrapped, 0 left/);
  expect(await run('keys', 'test-recovery', '--recovery-key', file('kit-2/recovery.key'))).toMatch(/opens 1 of 1/);
  expect(await run('keys', 'rewrap')).toMatch(/^0 data keys wrapped, 1 left/);
  expect(segments()).toBe(before);
});

it('begins a key epoch with the next run when it is asked to, and never before', async () => {
  await run('sync');
  expect(await listed()).toHaveLength(1);
  expect(await run('keys', 'rotate')).toBe('web: its next run ends key epoch 1\n');
  writeFileSync(image, content(2));
  await run('sync');
  await run('sync');
  expect((await listed()).map(({ epoch }) => epoch)).toEqual([1, 2]);
  expect(await restored()).toEqual(content(2));
});

it('lets a further key open what there is, and both go on', async () => {
  await makeKey('second.key');
  await run('keys', 'add-wrap', '--key-of', file('second.yaml'));
  const epochs = await listed();
  expect(epochs.map(({ wraps }) => wraps.length)).toEqual([3, 3]);
  expect(await restored('--config', file('second.yaml'))).toEqual(content(2));
  expect(await restored()).toEqual(content(2));
});

it('moves every data key to another key, keeps the age of the epochs, and syncs on', async () => {
  await makeKey('third.key');
  configure('third.yaml', 'third.key');
  const before = await listed();
  const moved = await failkitHere(['--config', file('third.yaml'), 'keys', 'rewrap', '--from', file('failkit.yaml')]);
  expect(moved).toMatchObject({ exitCode: 0 });
  const after = await listed();
  expect(after.map(({ wraps }) => wraps.length)).toEqual([2, 2]);
  expect(after.map(({ begunTime }) => begunTime)).toEqual(before.map(({ begunTime }) => begunTime));
  copyFileSync(file('third.yaml'), file('failkit.yaml'));
  rmSync(file('first.key'));
  writeFileSync(image, content(3));
  await run('sync');
  expect(await listed()).toHaveLength(2);
  expect(await restored()).toEqual(content(3));
});

it('moves to a new key with the recovery key alone when the former key is lost', async () => {
  await makeKey('fourth.key');
  configure('failkit.yaml', 'fourth.key');
  const refused = await failkit('keys', 'rewrap');
  expect(refused.exitCode).toBe(5);
  expect(refused.stderr).toMatch(/none of your keys opens this key record/);
  await run('keys', 'rewrap', '--recovery-key', file('kit-2/recovery.key'));
  expect(await restored('--point', '2')).toHaveLength(300_000);
});

it('syncs on after a move that nobody rewrapped for: with a new epoch', async () => {
  await makeKey('fifth.key');
  configure('failkit.yaml', 'fifth.key');
  writeFileSync(image, content(5));
  await run('sync');
  expect((await listed()).map(({ epoch }) => epoch)).toEqual([1, 2, 3]);
  expect(await restored()).toEqual(content(5));
});

it('refuses to rewrap on a host whose key the root key has not certified', async () => {
  writeFileSync(
    file('stranger.yaml'),
    readFileSync(file('failkit.yaml'), 'utf8').replace('state: state', 'state: other'),
  );
  const stranger = await failkitHere(['--config', file('stranger.yaml'), 'root', 'show', '--json']);
  expect(stranger.stderr).toContain('rootFingerprint');
  const { rootFingerprint } = JSON.parse(await run('root', 'show', '--json'));
  const text = `${readFileSync(file('stranger.yaml'), 'utf8')}rootFingerprint: ${rootFingerprint}\n`;
  writeFileSync(file('stranger.yaml'), text);
  const refused = await failkitHere(['--config', file('stranger.yaml'), 'keys', 'rewrap', '--again']);
  expect(refused.exitCode).toBe(6);
  expect(refused.stderr).toContain('has not certified');
});

it('refuses a recovery key as the key to wrap with', async () => {
  const refused = await failkit('keys', 'add-wrap', '--key-of', file('kit-2/restore.yaml'));
  expect(refused.exitCode).toBe(2);
  expect(refused.stderr).toContain('keys.provider');
});

it('publishes with an agent key of ECDSA, as a host in FIPS mode makes one', async () => {
  configure('ecdsa.yaml', 'ecdsa.key');
  const settings = readFileSync(file('ecdsa.yaml'), 'utf8').replace('state: state', 'state: state-ecdsa');
  writeFileSync(file('ecdsa.yaml'), settings.replace('directory: bucket', 'directory: bucket-ecdsa'));
  mkdirSync(file('state-ecdsa'), { mode: 0o700 });
  await createKeyFile(file('state-ecdsa/agent.key'), SigningKey.generate(ecdsaP384).exportPem());
  const ecdsa = async (...args: readonly string[]) => {
    const { exitCode, stderr } = await failkitHere(['--config', file('ecdsa.yaml'), ...args]);
    expect(exitCode, stderr).toBe(0);
  };
  await ecdsa('init', '--kit', file('kit-ecdsa'));
  await ecdsa('seed');
  await ecdsa('sync');
  await ecdsa('keys', 'rewrap', '--again');
  await ecdsa('verify', '--chain');
  await ecdsa('restore', 'web', '--to', file('out-ecdsa'));
  expect(readFileSync(file('out-ecdsa/root.raw'))).toEqual(readFileSync(image));
});

async function makeKey(name: string): Promise<void> {
  await createLocalKeyFile(file(name));
}
