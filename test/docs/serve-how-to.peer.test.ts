import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { recordOutput } from '../canary.ts';
import { nbdNeeds } from '../peers/nbd.ts';
import { peerFolder, peerNeeds } from '../peers/server-process.ts';
import { codeBlocks, root, textOf } from './documents.ts';

const run = promisify(execFile);
const offsetBytes = 1024 * 1024;
const needs = (await nbdNeeds()) ?? (await peerNeeds('bench/fuse')) ?? programNeeds();

describe.skipIf(needs !== null)(needs ?? 'docs/operations/serve.md, executed as it stands', () => {
  let folder: string;
  const wanted = randomBytes(300_000);
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'failkit-how-to-'));
    await mkdir(join(folder, 'files/etc'), { recursive: true });
    await writeFile(join(folder, 'files/etc/wanted.bin'), wanted);
    await writeFile(join(folder, 'files/etc/other'), randomBytes(2_000_000));
    const fileSystem = ['-q', '-F', '-t', 'ext4', '-E', `offset=${offsetBytes}`, '-d', 'files', 'disk.raw', '40m'];
    await run('mke2fs', fileSystem, { cwd: folder });
    await writeFile(
      join(folder, 'failkit.yaml'),
      `repository: { target: filesystem, directory: bucket }
keys: { provider: local-key, file: local.key }
state: state
machines:
  - name: accounting-db
    whenChanging: mark-inconsistent
    source: { type: image, disks: [{ label: system, path: disk.raw }] }
`,
    );
    await shell('failkit init --kit kit && failkit seed', folder);
  });
  afterAll(() => rm(folder, { recursive: true }));

  it('pulls a single file out of a point', async () => {
    const blocks = codeBlocks(await textOf('docs/operations/serve.md'), 'sh');
    expect(blocks).toHaveLength(3);
    const printed = await shell(blocks.join('\n'), folder, {
      MACHINE: 'accounting-db',
      DISK: 'system',
      OFFSET: String(offsetBytes),
      FILE: '/etc/wanted.bin',
    });
    expect(printed).toContain('other');
    expect(Buffer.compare(await readFile(join(folder, 'wanted.bin')), wanted)).toBe(0);
    expect(existsSync(join(folder, 'served/nbd'))).toBe(false);
  });
});

function programNeeds(): string | null {
  return existsSync('/usr/bin/nbdfuse') ? null : 'needs nbdfuse';
}

async function shell(script: string, cwd: string, variables: Readonly<Record<string, string>> = {}): Promise<string> {
  const PATH = [join(root, 'bin'), peerFolder('bench/fuse'), process.env.PATH].join(delimiter);
  const { stdout, stderr } = await run('sh', ['-euc', script], { cwd, env: { HOME: cwd, PATH, ...variables } });
  recordOutput(stdout + stderr);
  return stdout;
}
