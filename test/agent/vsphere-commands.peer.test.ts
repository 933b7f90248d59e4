/** What an operator sees of a vCenter before anything runs: the machines of it, and what stands in the way. */
import { X509Certificate } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stripVTControlCharacters } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import type { Finding } from '../../agent/doctor/finding.ts';
import { closedPorts } from '../../hypervisors/vsphere/disk-hosts.ts';
import { listInventory } from '../../hypervisors/vsphere/inventory.ts';
import { tag } from '../../hypervisors/vsphere/vim25/soap-xml.ts';
import { runTask } from '../../hypervisors/vsphere/vim25/tasks.ts';
import { thumbprintOf } from '../../hypervisors/vsphere/vim25/trusted-agent.ts';
import { VimSession } from '../../hypervisors/vsphere/vim25/vim-session.ts';
import { connectProxyNeeds, startConnectProxy } from '../peers/connect-proxy.ts';
import { makeCertificate } from '../peers/tls-certificate.ts';
import { startVcsim, type Vcsim, vcsimNeeds } from '../peers/vcsim.ts';
import { makeStandInVddk, standInFor, vddkNeeds } from '../peers/vddk.ts';
import { failkitHere } from './in-process.ts';

const needs = (await vcsimNeeds()) ?? (await vddkNeeds());
const proxyNeeds = await connectProxyNeeds();
const proxySuffix = proxyNeeds === null ? '' : ` (${proxyNeeds})`;
const never = new AbortController().signal;
const machine = 'DC0_H0_VM0';
const path = `DC0/vm/${machine}`;

interface ListedMachine {
  readonly path: string;
  readonly instanceUuid: string;
  readonly protectedAs: string | null;
  readonly tracking: string;
  readonly pool: string;
  readonly snapshots: readonly string[];
  readonly disks: readonly {
    readonly label: string;
    readonly capacityBytes: number;
    readonly refusal: string | null;
  }[];
}

describe.skipIf(needs !== null)(`vCenter at the command line${needs === null ? '' : ` (${needs})`}`, () => {
  const folder = mkdtempSync(join(tmpdir(), 'failkit-vsphere-'));
  const stack = new AsyncDisposableStack();
  let vcsim: Vcsim;
  let settings: Record<string, unknown>;
  beforeAll(async () => {
    vcsim = stack.use(await startVcsim({ capacityBytes: 2 ** 20 }));
    const vddk = stack.use(await makeStandInVddk(standInFor(vcsim)));
    writeFileSync(join(folder, 'password'), vcsim.password, { mode: 0o600 });
    settings = {
      ...{ name: 'site-a', type: 'vsphere', server: `${vcsim.host}:${vcsim.port}`, user: vcsim.user },
      ...{ password: `\${file:${join(folder, 'password')}}`, thumbprint: pinOf(vcsim.certificate.certFile) },
      vddk: { libdir: vddk.libdir, nbdkit: vddk.nbdkit },
    };
  });
  afterAll(async () => {
    await stack.disposeAsync();
    rmSync(folder, { recursive: true });
  });

  async function failkit(args: readonly string[], changed: object = {}, columns?: number) {
    const config = {
      repository: { target: 'filesystem', directory: 'bucket' },
      ...{ keys: { provider: 'local-key', file: 'local.key' }, state: 'state' },
      sources: [{ ...settings, ...changed }],
      machines: [{ name: 'web', source: { type: 'vsphere', from: 'site-a', path } }],
    };
    writeFileSync(join(folder, 'failkit.yaml'), stringify(config), { mode: 0o600 });
    const all = ['--config', join(folder, 'failkit.yaml'), ...args];
    return await failkitHere(all, columns === undefined ? {} : { columns });
  }

  const doctor = async (changed: object = {}) => {
    const { stdout } = await failkit(['doctor', '--json'], changed);
    const { findings } = JSON.parse(stdout) as { findings: readonly Finding[] };
    return { find: (check: string) => findings.find((finding) => finding.check === check) };
  };

  async function setFirmware(firmware: string): Promise<void> {
    const { host, port, user, password, certificate } = vcsim;
    const trust = { thumbprint: thumbprintOf(new X509Certificate(readFileSync(certificate.certFile))), caFile: null };
    const login = { user, password: { reveal: () => password } };
    await using session = new VimSession({ address: { host, port }, trust, proxy: null, ...login });
    const [listed] = (await listInventory(session, never)).filter((each) => each.path === path);
    if (listed === undefined) throw new Error(`there is no ${path}`);
    const spec = [tag('spec', [tag('firmware', firmware)])];
    await runTask(session, 'ReconfigVM_Task', listed.machine.ref, spec, 10_000, never);
  }

  it('lists its machines with their disks, and says which are protected', async () => {
    const { stdout, exitCode } = await failkit(['machines', '--source', 'site-a', '--json']);
    expect(exitCode).toBe(0);
    const { machines } = JSON.parse(stdout) as { machines: readonly ListedMachine[] };
    expect(machines.map((each) => [each.path, each.protectedAs])).toEqual([
      ['DC0/vm/DC0_C0_RP0_VM0', null],
      [path, 'web'],
    ]);
    expect(machines[1]).toMatchObject({
      ...{ tracking: 'off', snapshots: [], instanceUuid: expect.stringMatching(/^[0-9a-f-]{36}$/) },
      disks: [{ label: 'scsi0:0', capacityBytes: 2 ** 20, refusal: null }],
    });
    const narrowed = async (...args: string[]) =>
      (JSON.parse((await failkit(['machines', '--json', ...args])).stdout) as { machines: unknown[] }).machines.length;
    expect(await narrowed('--folder', 'DC0/vm')).toBe(2);
    expect(await narrowed('--folder', 'DC0/v')).toBe(0);
    expect(await narrowed('--pool', machines[0]?.pool ?? '')).toBe(1);
  });

  it('lists those with a tag, by its name or with its category', async () => {
    await vcsim.tag(machine, 'tier', 'gold');
    await vcsim.tag('DC0_C0_RP0_VM0', 'owner', 'sales');
    const tagged = async (tag: string) =>
      (
        JSON.parse((await failkit(['machines', '--json', '--tag', tag])).stdout) as {
          machines: { name: string; tags: string[] }[];
        }
      ).machines.map(({ name, tags }) => [name, tags]);
    expect(await tagged('gold')).toEqual([[machine, ['tier/gold']]]);
    expect(await tagged('tier/gold')).toEqual([[machine, ['tier/gold']]]);
    expect(await tagged('owner/sales')).toEqual([['DC0_C0_RP0_VM0', ['owner/sales']]]);
    expect(await tagged('owner/gold')).toEqual([]);
    const refused = await failkit(['machines', '--tag', 'gold'], { user: 'nobody@vsphere.local' });
    expect([refused.exitCode, refused.stderr]).toEqual([
      3,
      expect.stringContaining('does not let nobody@vsphere.local in'),
    ]);
  });

  it('is told by doctor whose clock is off', async () => {
    await vcsim.behave({ clockAheadMs: 3_600_000 });
    const found = (await doctor()).find('source site-a');
    expect(found).toMatchObject({ outcome: 'warning', what: /its clock is .* ahead of this host's/ });
    await vcsim.behave({});
  });

  it('is told by doctor which privileges the account lacks', async () => {
    await vcsim.behave({ lacking: ['VirtualMachine.State.RemoveSnapshot', 'VirtualMachine.Config.ChangeTracking'] });
    const { find } = await doctor();
    expect(find('machine web')).toMatchObject({
      outcome: 'failed',
      what: expect.stringContaining(
        'the account lacks VirtualMachine.State.RemoveSnapshot, VirtualMachine.Config.ChangeTracking',
      ),
    });
    await vcsim.behave({});
  });

  it('is told by doctor that UEFI variables are not captured, and that a datastore is nearly full', async () => {
    await setFirmware('efi');
    await vcsim.behave({ lacking: ['Datastore.FileManagement'] });
    await vcsim.setFree('LocalDS_0', 2 ** 30);
    const found = (await doctor()).find('machine web');
    expect(found).toMatchObject({
      outcome: 'failed',
      what: expect.stringContaining('datastore LocalDS_0 has 1073741824'),
    });
    await vcsim.setFree('LocalDS_0', 2 ** 40);
    expect((await doctor()).find('machine web')?.what).toContain(
      'its UEFI variables are not captured: the account lacks Datastore.FileManagement',
    );
    await vcsim.behave({});
    expect((await doctor()).find('machine web')?.what).not.toContain('UEFI');
    await setFirmware('bios');
  });

  it('shows the same as a table, of which a narrow terminal sees the most important part', async () => {
    const wide = stripVTControlCharacters((await failkit(['machines'], {}, 200)).stdout);
    expect(wide).toMatch(/machine +instance UUID +protected as +power +tracking +disks/);
    expect(wide).toMatch(/DC0\/vm\/DC0_H0_VM0 +[0-9a-f-]{36} +web +on +off +scsi0:0 1\.0 MiB/);
    const narrow = stripVTControlCharacters((await failkit(['machines'], {}, 80)).stdout).split('\n');
    expect(Math.max(...narrow.map((line) => line.length))).toBeLessThanOrEqual(80);
  });

  it('is refused by name: a source that there is not', async () => {
    const { exitCode, stderr } = await failkit(['machines', '--source', 'site-b']);
    expect([exitCode, stderr]).toEqual([2, expect.stringContaining('sources: has no site-b: there is site-a')]);
  });

  it('is found by doctor: server, certificate, VDDK', async () => {
    const { find } = await doctor();
    expect(find('source site-a')).toMatchObject({ outcome: 'warning', what: /API [\d.]+: its certificate ends on/ });
    expect(find('vddk of site-a')).toMatchObject({ outcome: 'ok', what: /nbdkit 1\.\d+\.\d+, .*transports/ });
  });

  it.skipIf(proxyNeeds !== null)(`is reached through a proxy, and checked there, too${proxySuffix}`, async () => {
    await using proxy = await startConnectProxy();
    await using other = await makeCertificate();
    writeFileSync(join(folder, 'proxy'), proxy.url, { mode: 0o600 });
    const through = { proxy: `\${file:${join(folder, 'proxy')}}` };
    expect((await doctor(through)).find('source site-a')).toMatchObject({ outcome: 'warning', what: /API [\d.]+/ });
    expect(await proxy.log()).toContain(`${vcsim.host}:${vcsim.port}`);
    const untrusted = await doctor({ ...through, thumbprint: pinOf(other.certFile) });
    expect(untrusted.find('source site-a')).toMatchObject({ code: 'VSPHERE_UNTRUSTED' });
    writeFileSync(join(folder, 'proxy'), proxy.urlWithWrongPassword, { mode: 0o600 });
    expect((await doctor(through)).find('source site-a')).toMatchObject({ code: 'VSPHERE_UNREACHABLE' });
  });

  it('is told by doctor which hosts a disk may come from and are not reached', async () => {
    const { find } = await doctor();
    const found = find(`machine web`);
    expect(found).toMatchObject({ outcome: 'warning', what: /host DC0_H0 can't be reached at port 902 \(\w+\)/ });
    expect(found?.what).toMatch(/at port 443/);
  });

  it('is told by doctor what is wrong with the source, and sends no password to another server', async () => {
    await using other = await makeCertificate();
    const untrusted = await doctor({ thumbprint: pinOf(other.certFile) });
    expect(untrusted.find('source site-a')).toMatchObject({
      ...{ outcome: 'failed', code: 'VSPHERE_UNTRUSTED', exitCode: 3 },
    });
    expect(untrusted.find('vddk of site-a')).toMatchObject({ outcome: 'skipped' });
    const refused = await doctor({ user: 'nobody@vsphere.local' });
    expect(refused.find('source site-a')).toMatchObject({ outcome: 'failed', code: 'VSPHERE_LOGIN_REFUSED' });
    const gone = await doctor({ server: '127.0.0.1:1' });
    expect(gone.find('source site-a')).toMatchObject({ outcome: 'failed', code: 'VSPHERE_UNREACHABLE' });
    const noVddk = await doctor({ vddk: { libdir: folder, nbdkit: join(folder, 'nbdkit') } });
    expect(noVddk.find('vddk of site-a')).toMatchObject({ outcome: 'failed', code: 'NBDKIT_MISSING' });
  });
});

it('a host whose ports answer is not named, and one whose port is closed is', async () => {
  const server = createServer((socket) => socket.destroy()).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  expect(await closedPorts(['127.0.0.1'], never, [port, 1])).toEqual([
    { host: '127.0.0.1', port: 1, why: 'ECONNREFUSED' },
  ]);
  server.close();
});

function pinOf(certFile: string): string {
  return new X509Certificate(readFileSync(certFile)).fingerprint256;
}
