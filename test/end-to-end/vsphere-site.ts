/** A vCenter whose guest never stops writing, and an agent that protects one of its machines through nbdkit and VDDK. */
import { randomBytes, X509Certificate } from 'node:crypto';
import { type FileHandle, mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { stringify } from 'yaml';
import { startVcsim, type Vcsim, vcsimNeeds } from '../peers/vcsim.ts';
import { makeStandInVddk, type StandInVddk, standInFor, vddkNeeds } from '../peers/vddk.ts';
import { type FailkitProcess, type Outcome, runFailkit, startFailkit } from './failkit-process.ts';

/** What is missing, or null. */
export const vsphereNeeds = async () => (await vcsimNeeds()) ?? (await vddkNeeds());

export interface VsphereSite extends AsyncDisposable {
  readonly folder: string;
  readonly vcsim: Vcsim;
  readonly vddk: StandInVddk;
  /** As the vCenter calls it; the agent calls it `web`. */
  readonly machine: string;
  /** What `machine`, `source` and `server` name replaces the site's own settings of those names; the rest stands beside them. */
  configure(settings?: VsphereSettings): Promise<void>;
  failkit(...args: readonly string[]): Promise<Outcome>;
  start(...args: readonly string[]): FailkitProcess;
}

export interface VsphereSettings {
  readonly machine?: object;
  readonly source?: object;
  readonly server?: object;
  readonly [key: string]: unknown;
}

export async function openVsphereSite(capacityBytes = 8 * 1024 * 1024): Promise<VsphereSite> {
  await using opening = new AsyncDisposableStack();
  const vcsim = opening.use(await startVcsim({ capacityBytes }));
  const vddk = opening.use(await makeStandInVddk(standInFor(vcsim)));
  const folder = await mkdtemp(join(tmpdir(), 'failkit-vsphere-'));
  opening.defer(() => rm(folder, { recursive: true, force: true }));
  await writeFile(join(folder, 'password'), vcsim.password, { mode: 0o600 });
  const { fingerprint256 } = new X509Certificate(await readFile(vcsim.certificate.certFile));
  const withConfig = (args: readonly string[]) => ['--config', join(folder, 'failkit.yaml'), ...args];
  const configure: VsphereSite['configure'] = ({ machine = {}, source = {}, server = {}, ...rest } = {}) => {
    const lab = {
      ...{ name: 'lab', type: 'vsphere', server: `${vcsim.host}:${vcsim.port}`, user: vcsim.user },
      ...{ password: `\${file:${join(folder, 'password')}}`, thumbprint: fingerprint256 },
      vddk: { libdir: vddk.libdir, nbdkit: vddk.nbdkit },
    };
    const config = {
      repository: { target: 'filesystem', directory: 'bucket' },
      keys: { provider: 'local-key', file: 'local.key' },
      state: 'state',
      sources: [{ ...lab, ...server }],
      ...rest,
      machines: [
        {
          ...{ name: 'web', quiesce: 'prefer' },
          source: { type: 'vsphere', from: 'lab', path: 'DC0/vm/DC0_H0_VM0', ...source },
          ...machine,
        },
      ],
    };
    return writeFile(join(folder, 'failkit.yaml'), stringify(config));
  };
  await configure();
  const held = opening.move();
  return {
    ...{ folder, vcsim, vddk, machine: 'DC0_H0_VM0', configure },
    failkit: (...args) => runFailkit(withConfig(args), { folder }),
    start: (...args) => startFailkit(withConfig(args), { folder }),
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}

/** Writes to the first quarter of each disk, here and there, for as long as it lives. */
export async function writeOn(site: VsphereSite): Promise<AsyncDisposable> {
  const disks = await site.vcsim.disks(site.machine);
  const files: FileHandle[] = [];
  for (const { live } of disks) files.push(await open(live, 'r+'));
  let ends = false;
  const written = (async () => {
    while (!ends) {
      for (const [i, file] of files.entries()) await writeSomewhere(file, disks[i]?.capacityBytes ?? 0);
      await sleep(20);
    }
  })();
  return {
    async [Symbol.asyncDispose]() {
      ends = true;
      await written;
      for (const file of files) await file.close();
    },
  };
}

async function writeSomewhere(file: FileHandle, capacityBytes: number): Promise<void> {
  const bytes = randomBytes(700);
  const place = randomBytes(4).readUInt32LE() % ((capacityBytes >> 2) - bytes.length);
  await file.write(bytes, 0, bytes.length, place);
}

/** Of each disk of the newest snapshot, by the name of its restored file: a copy that the vCenter made at its instant. */
export async function copiesOf({ vcsim, machine, folder }: VsphereSite): Promise<ReadonlyMap<string, string>> {
  const copies = new Map<string, string>();
  for (const { label, path } of (await vcsim.points(machine)).at(-1)?.disks ?? []) {
    const name = label.replace(':', '_');
    const copy = join(folder, `copy-${name}`);
    await writeFile(copy, await readFile(path));
    copies.set(name, copy);
  }
  return copies;
}
