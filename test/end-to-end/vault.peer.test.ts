import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { failkitHere } from '../agent/in-process.ts';
import { codeBlocks, textOf } from '../docs/documents.ts';
import { startVault, type VaultPeer, vaultNeeds } from '../peers/vault.ts';

/** A machine whose keys are in Vault, under the policies of docs/operations/vault.md. */

const needs = await vaultNeeds();
const [writeOnly = '', full = '', restorer = ''] = codeBlocks(await textOf('docs/operations/vault.md'), 'hcl');

describe.skipIf(needs !== null)(needs ?? 'keys in Vault', () => {
  const content = (run: number) => Buffer.alloc(300_000, `what the disk held at the time of run ${run} `);
  let vault: VaultPeer;
  let folder: string;
  const file = (name: string) => join(folder, name);
  beforeAll(async () => {
    vault = await startVault();
    folder = mkdtempSync(join(tmpdir(), 'failkit-vault-site-'));
    await vault.ask('POST', 'transit/keys/failkit', {});
    writeFileSync(file('web.raw'), content(1));
  }, 120_000);
  afterAll(async () => {
    await vault?.stop();
    rmSync(folder, { recursive: true });
  });

  async function as(policy: string, access: string, ...args: readonly string[]) {
    writeFileSync(file('token'), await vault.tokenFor(policy));
    const keys = `{ provider: vault-transit, address: '${vault.address}', key: failkit, credentials: { from: token-file, file: token } }`;
    writeFileSync(
      file('failkit.yaml'),
      `repository: { target: filesystem, directory: bucket }
keys: ${keys}
access: ${access}
state: state
machines:
  - { name: web, source: { type: image, disks: [{ label: root, path: web.raw }] }, whenChanging: mark-inconsistent }
`,
    );
    return await failkitHere(['--config', file('failkit.yaml'), ...args]);
  }

  it('seeds and syncs as an agent that may not decrypt, which can not restore', async () => {
    for (const args of [['init', '--kit', file('kit')], ['seed'], ['sync']])
      expect(await as(writeOnly, 'write-only', ...args)).toMatchObject({ exitCode: 0, stderr: '' });
    const doctor = JSON.parse((await as(writeOnly, 'write-only', 'doctor', '--json')).stdout);
    expect(doctor.findings.find(({ check }: { check: string }) => check === 'unwrapping')).toMatchObject({
      outcome: 'ok',
    });
    const refused = await as(writeOnly, 'write-only', 'restore', 'web', '--to', file('out-0'));
    expect(refused.exitCode).toBe(5);
    expect(refused.stderr).toContain('permission denied');
  });

  it('restores as a restorer, which can not make points', async () => {
    expect(await as(restorer, 'full', 'restore', 'web', '--to', file('out-1'))).toMatchObject({ exitCode: 0 });
    expect(readFileSync(file('out-1/root.raw'))).toEqual(content(1));
    expect((await as(restorer, 'write-only', 'sync')).exitCode).toBe(5);
  });

  it('goes on as a full agent while Vault is sealed', async () => {
    expect(await as(full, 'full', 'sync')).toMatchObject({ exitCode: 0 });
    writeFileSync(file('web.raw'), content(2));
    await vault.ask('POST', 'sys/seal');
    const sealed = await failkitHere(['--config', file('failkit.yaml'), 'sync', '--json']);
    expect(sealed).toMatchObject({ exitCode: 0 });
    expect(JSON.parse(sealed.stdout).machines[0].keyServiceAway).toContain('sealed');
    const kit = await failkitHere(['--config', file('kit/restore.yaml'), 'restore', 'web', '--to', file('out-2')]);
    expect(kit).toMatchObject({ exitCode: 0 });
    expect(readFileSync(file('out-2/root.raw'))).toEqual(content(2));
  });
});
