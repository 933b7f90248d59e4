import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type CloudKms, startCloudKms } from '../fakes/cloud-kms.ts';
import { type KeyVault, startKeyVault } from '../fakes/key-vault.ts';
import { failkitHere } from './in-process.ts';

/** Machines whose keys are in clouds that no server here plays: the whole way from the configuration, against doubles. */

const content = Buffer.alloc(300_000, 'what the disk held ');
let folder: string;
let kms: CloudKms;
let vault: KeyVault;
const file = (name: string) => join(folder, name);

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'failkit-cloud-keys-'));
  writeFileSync(file('web.raw'), content);
  kms = await startCloudKms();
  vault = await startKeyVault();
});
afterAll(async () => {
  rmSync(folder, { recursive: true });
  await kms[Symbol.asyncDispose]();
  await vault[Symbol.asyncDispose]();
});

async function failkit(site: string, keys: string, access: string, ...args: readonly string[]) {
  writeFileSync(
    file(`${site}.yaml`),
    `repository: { target: filesystem, directory: bucket-${site} }
keys: ${keys}
access: ${access}
state: state-${site}
machines:
  - { name: web, source: { type: image, disks: [{ label: root, path: web.raw }] }, whenChanging: mark-inconsistent }
`,
  );
  return await failkitHere(['--config', file(`${site}.yaml`), ...args]);
}

async function outcomeOf(check: string, stdout: string) {
  const { findings } = JSON.parse(stdout);
  return findings.find((finding: { readonly check: string }) => finding.check === check)?.outcome;
}

it('replicates and restores with Google Cloud KMS, each role with no more than its own permission (stub of the documented answers)', async () => {
  const key = kms.createKey();
  for (const role of ['encrypt', 'decrypt'] as const)
    writeFileSync(file(role), kms.serviceAccount(role), { mode: 0o600 });
  const keys = (role: string) =>
    `{ provider: gcp-kms, key: ${key}, endpoint: '${kms.endpoint}', credentials: { from: service-account, key: '\${file:${file(role)}}' } }`;
  for (const args of [['init', '--kit', file('kit-gcp')], ['seed'], ['sync']])
    expect(await failkit('gcp', keys('encrypt'), 'write-only', ...args)).toMatchObject({ exitCode: 0 });
  const doctor = await failkit('gcp', keys('encrypt'), 'write-only', 'doctor', '--json');
  expect([await outcomeOf('data keys', doctor.stdout), await outcomeOf('unwrapping', doctor.stdout)]).toEqual([
    'ok',
    'ok',
  ]);
  const refused = await failkit('gcp', keys('encrypt'), 'full', 'restore', 'web', '--to', file('out-0'));
  expect(refused.exitCode).toBe(5);
  expect(await failkit('gcp', keys('decrypt'), 'full', 'restore', 'web', '--to', file('out-1'))).toMatchObject({
    exitCode: 0,
  });
  expect(readFileSync(file('out-1/root.raw'))).toEqual(content);
});

it('replicates with the public half of a Key Vault key alone, without one request, and restores with the kit (stub of the documented answers)', async () => {
  const { keyId, publicPem } = vault.newest(vault.createKey());
  writeFileSync(file('public.pem'), publicPem);
  const before = vault.requests;
  const named = keyId.replace(/^http:\/\/[^/]+/, 'https://example.vault.azure.net');
  const keys = `{ provider: azure-key-vault, keyId: '${named}', endpoint: '${vault.endpoint}', publicKeyFile: public.pem }`;
  for (const args of [['init', '--kit', file('kit-azure')], ['seed'], ['sync']])
    expect(await failkit('azure', keys, 'write-only', ...args)).toMatchObject({ exitCode: 0 });
  expect(vault.requests).toBe(before);
  const listed = JSON.parse((await failkit('azure', keys, 'write-only', 'keys', 'list', '--json')).stdout);
  expect(listed.machines[0].epochs[0].wraps[0]).toEqual({ provider: 'azure-key-vault', keyId: named });
  const kit = await failkitHere(['--config', file('kit-azure/restore.yaml'), 'restore', 'web', '--to', file('out-2')]);
  expect(kit).toMatchObject({ exitCode: 0 });
  expect(readFileSync(file('out-2/root.raw'))).toEqual(content);
});

it('says of a Key Vault key that is no identifier what is wrong', async () => {
  const misnamed = await failkit(
    'misnamed',
    '{ provider: azure-key-vault, keyId: failkit }',
    'full',
    'config',
    'check',
  );
  expect(misnamed.exitCode).toBe(2);
  expect(misnamed.stderr).toContain('https://NAME.vault.azure.net/keys/KEY');
});
