import { execFile } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { recordOutput } from '../canary.ts';
import { codeBlocks, root, textOf } from './documents.ts';

const run = promisify(execFile);
const machine = 'accounting-db';

describe('docs/operations/recover-from-the-bucket.md, executed as it stands', () => {
  let folder: string;
  let disk: Uint8Array;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'failkit-runbook-'));
    await mkdir(join(folder, 'site'));
    disk = Buffer.concat([randomBytes(3_000_000), new Uint8Array(5_000_000), randomBytes(1_000_001)]);
    await writeFile(join(folder, 'site/disk.raw'), disk);
    await writeFile(
      join(folder, 'site/failkit.yaml'),
      `repository: { target: filesystem, directory: ../bucket }
keys: { provider: local-key, file: local.key }
state: state
machines:
  - name: ${machine}
    source: { type: image, disks: [{ label: system, path: disk.raw }] }
`,
    );
    await shell('failkit init --kit ../kit && failkit seed', join(folder, 'site'));
    // The site is gone: no configuration, no key file, no state.
    await rename(join(folder, 'site'), join(folder, 'lost'));
  });
  afterAll(async () => {
    await rm(folder, { recursive: true });
  });

  it('brings the machine back', async () => {
    const blocks = codeBlocks(await textOf('docs/operations/recover-from-the-bucket.md'), 'sh');
    expect(blocks.length).toBeGreaterThanOrEqual(4);
    const printed = await shell(blocks.join('\n'), folder, {
      KIT: join(folder, 'kit'),
      MACHINE: machine,
      TO: join(folder, 'restored'),
    });
    expect(printed).toContain(machine);
    expect(sha256(await readFile(join(folder, 'restored/system.raw')))).toBe(sha256(disk));
  });
});

async function shell(script: string, cwd: string, variables: Readonly<Record<string, string>> = {}): Promise<string> {
  const PATH = [join(root, 'bin'), process.env.PATH].join(delimiter);
  const { stdout, stderr } = await run('sh', ['-euc', script], { cwd, env: { HOME: cwd, PATH, ...variables } });
  recordOutput(stdout + stderr);
  return stdout;
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}
