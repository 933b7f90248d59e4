/** `failkit machines` at answers in the shapes that real vCenters have: what can't be protected, and what is to be known of the rest. */
import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stripVTControlCharacters } from 'node:util';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { canaries } from '../canary.ts';
import { fixture, responseOf, type ScriptedVim, startScriptedVim } from '../hypervisors/vsphere/scripted-vim.ts';
import { failkitHere } from './in-process.ts';

let vim: ScriptedVim;
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'failkit-machines-'));
  vim = await startScriptedVim();
  vim.reset();
  const view = '<returnval type="ContainerView">view-1</returnval>';
  vim.answer('CreateContainerView', responseOf('CreateContainerView', view));
  vim.answer('DestroyView', responseOf('DestroyView', ''));
  vim.answer('RetrievePropertiesEx', fixture('machines-page-1.xml'));
  vim.answer('ContinueRetrievePropertiesEx', fixture('machines-page-2.xml'));
  await writeFile(join(folder, 'password'), canaries().password, { mode: 0o600 });
  const { fingerprint256 } = new X509Certificate(readFileSync(vim.certificate.certFile));
  const source = {
    ...{ name: 'site-a', type: 'vsphere', server: `127.0.0.1:${vim.port}`, user: 'agent@vsphere.local' },
    ...{ password: `\${file:${join(folder, 'password')}}`, thumbprint: fingerprint256 },
  };
  const config = {
    repository: { target: 'filesystem', directory: 'bucket' },
    ...{ keys: { provider: 'local-key', file: 'local.key' }, state: 'state', sources: [source] },
    machines: [
      {
        name: 'web',
        source: { type: 'vsphere', from: 'site-a', instanceUuid: '502E1052-E10A-0070-52E1-000000000007' },
      },
    ],
  };
  await writeFile(join(folder, 'failkit.yaml'), stringify(config), { mode: 0o600 });
});
afterAll(async () => {
  await vim?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});

it('failkit machines says why a disk is left out, and what an encrypted one and a TPM ask for', async () => {
  const { exitCode, stdout } = await failkitHere(['--config', join(folder, 'failkit.yaml'), 'machines']);
  expect(exitCode).toBe(0);
  const lines = stripVTControlCharacters(stdout).split('\n');
  expect(lines.filter((line) => line.startsWith('007: '))).toEqual([
    '007: its host does not have it (unknown)',
    expect.stringMatching(/^007: scsi0:1: it is a raw device in physical mode/),
    expect.stringMatching(/^007: sata0:2: its mode is independent_nonpersistent/),
    expect.stringMatching(/^007: nvme0:0: it is shared by several machines \(multi-writer\)/),
    expect.stringMatching(/^007: scsi1:0: its controller shares its bus \(physicalSharing\)/),
    expect.stringMatching(/^007: scsi0:2: it is encrypted by vSphere: the account needs Cryptographer.Access/),
    expect.stringMatching(/^007: the content of its virtual TPM is not captured/),
  ]);
  expect(stdout).toMatch(/007 +502e1052-e10a-0070-52e1-000000000007 +web +on/);
});
