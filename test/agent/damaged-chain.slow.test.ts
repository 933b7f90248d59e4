import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { runCli } from '../../agent/cli.ts';
import { neverHangUp } from '../../agent/interrupt.ts';

const folder = mkdtempSync(join(tmpdir(), 'failkit-chain-'));
const image = Buffer.alloc(300_000, 'content of the disk ');

beforeAll(async () => {
  writeFileSync(join(folder, 'web.raw'), image);
  writeFileSync(
    join(folder, 'failkit.yaml'),
    `repository: { target: filesystem, directory: bucket }
keys: { provider: local-key, file: local.key }
state: state
machines: [{ name: web, source: { type: image, disks: [{ label: root, path: web.raw }] } }]
`,
  );
  for (const command of [['init', '--kit', join(folder, 'kit')], ['seed'], ['sync']]) {
    expect((await failkit(...command)).exitCode).toBe(0);
  }
  damageNewestEntry();
}, 60_000);

afterAll(() => rmSync(folder, { recursive: true }));

it('stops the next run, is found by verify, and is read around on request', async () => {
  expect(await failkit('sync')).toMatchObject({ exitCode: 7 });
  const verified = await failkit('verify');
  expect(verified.exitCode).toBe(7);
  expect(JSON.stringify(verified.document)).toContain('SIGNATURE_INVALID');
  expect(await failkit('points', 'web')).toMatchObject({ exitCode: 7 });
  const salvaged = await failkit('points', 'web', '--salvage');
  expect(salvaged).toMatchObject({ exitCode: 0, document: { machines: [{ points: [{ point: 2 }] }] } });
});

it('lets the machine begin another replica next to the damaged one', async () => {
  expect(await failkit('seed', 'web')).toMatchObject({ exitCode: 2 });
  expect(await failkit('seed', 'web', '--new-replica')).toMatchObject({ exitCode: 0 });
  expect(await failkit('sync')).toMatchObject({ exitCode: 0 });
  expect(await failkit('restore', 'web', '--to', join(folder, 'out'))).toMatchObject({ exitCode: 0 });
  expect(readFileSync(join(folder, 'out', 'root.raw')).equals(image)).toBe(true);
}, 30_000);

async function failkit(...args: string[]): Promise<{ exitCode: number; document: unknown }> {
  let text = '';
  const stdout = { write: (more: string) => (text += more) };
  const host = {
    stdout,
    stderr: { write: () => true },
    environment: {},
    signal: new AbortController().signal,
    onHangUp: neverHangUp,
  };
  const exitCode = await runCli(['--config', join(folder, 'failkit.yaml'), '--json', ...args], host);
  return { exitCode, document: text === '' ? null : JSON.parse(text) };
}

function damageNewestEntry(): void {
  const machines = join(folder, 'bucket', 'machines');
  const chain = join(machines, readdirSync(machines)[0] ?? '', 'chain');
  const newest = join(chain, readdirSync(chain).sort()[0] ?? '');
  const bytes = readFileSync(newest);
  bytes[100] = (bytes[100] ?? 0) ^ 1;
  rmSync(newest);
  writeFileSync(newest, bytes);
}
