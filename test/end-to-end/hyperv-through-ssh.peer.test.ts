/** A Hyper-V host that is reached by SSH: OpenSSH's own server and real SFTP reads; the worker behind it is the model's. */
import { copyFile, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type SshServer, sshdNeeds, startSshd } from '../peers/sshd.ts';
import { type HypervSite, openHypervSite } from './hyperv-site.ts';

const needs = await sshdNeeds();

describe.skipIf(needs !== null)(`a machine of Hyper-V through SSH (${needs ?? 'a real OpenSSH server'})`, () => {
  let site: HypervSite;
  let server: SshServer;
  beforeAll(async () => {
    site = await openHypervSite();
    server = await startSshd(site.folder);
    // What the far shell finds by that name.
    await copyFile(join(site.folder, 'powershell'), join(site.folder, 'powershell.exe'));
    expect((await site.failkit('init', '--kit', 'kit')).exitCode).toBe(0);
    await site.configure({ host: sshOf() });
  });
  afterAll(async () => {
    await server?.[Symbol.asyncDispose]();
    await site?.[Symbol.asyncDispose]();
  });

  function sshOf(changed: object = {}): object {
    const { port, user, keyFile, hostKey } = server;
    return {
      powershell: 'nothing-on-this-host',
      ssh: { server: `127.0.0.1:${port}`, user, privateKey: `\${file:${keyFile}}`, hostKey, ...changed },
    };
  }

  async function observe(verb: string): Promise<{ readonly readBytes: number }> {
    const { exitCode, stderr, json } = await site.failkit(verb, 'web', '--json');
    expect([exitCode, stderr]).toEqual([0, expect.anything()]);
    const [published] = json<{ machines: { point: number; readBytes: number }[] }>().machines;
    expect(await site.differing(String(published?.point))).toEqual([]);
    return { readBytes: published?.readBytes ?? -1 };
  }

  it('gives points that are what its disks held, out of a chain of files, and reads only what changed', async () => {
    site.model(({ host }) => host.makeCheckpoint('before the upgrade', false));
    site.write();
    await observe('seed');
    site.write();
    expect((await observe('sync')).readBytes).toBeLessThan(512 * 1024);
    const laid = (await readdir(site.folder)).filter((name) => name.startsWith('failkit-hyperv-worker-'));
    expect(laid).toEqual([expect.stringMatching(/-[0-9a-f]{16}\.ps1$/)]);
  });

  it('is not spoken to where it shows another key, nor let in with another one of ours', async () => {
    await site.configure({ host: sshOf({ hostKey: `SHA256:${'A'.repeat(43)}` }) });
    const untrusted = await site.failkit('sync', 'web');
    expect([untrusted.exitCode, untrusted.stderr]).toEqual([3, expect.stringMatching(/shows the key SHA256:/)]);
    const wrong = join(site.folder, 'wrong-key');
    await writeFile(wrong, 'not a key\n', { mode: 0o600 });
    await site.configure({ host: sshOf({ privateKey: `\${file:${wrong}}` }) });
    const refused = await site.failkit('sync', 'web');
    expect([refused.exitCode, refused.stderr]).toEqual([3, expect.stringMatching(/does not let us in/)]);
    await site.configure({ host: sshOf({ server: '127.0.0.1:1' }) });
    expect((await site.failkit('sync', 'web')).exitCode).toBe(3);
    await site.configure({ host: sshOf() });
  });
});
