/** A host with a real libvirt, one machine that never stops writing, and an agent that protects it. */
import { chmod, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { makeDataDisk, makeGuestDisk, qemuImg } from '../peers/guest.ts';
import { startWriter } from '../peers/guest-writer.ts';
import { type DomainDisk, defineDomain, type LibvirtGuest, type LibvirtPeer, startLibvirt } from '../peers/libvirt.ts';
import { madeBeforeItEnds, type ObservedRun } from './differing-disks.ts';
import { type FailkitProcess, type Outcome, runFailkit, startFailkit } from './failkit-process.ts';

export interface LibvirtSite extends AsyncDisposable {
  readonly folder: string;
  readonly peer: LibvirtPeer;
  readonly guest: LibvirtGuest;
  readonly disks: readonly DomainDisk[];
  /** What `machine`, `source` and `limits` name replaces the site's own settings of those names. */
  configure(settings?: {
    readonly machine?: object;
    readonly source?: object;
    readonly limits?: object;
  }): Promise<void>;
  failkit(...args: readonly string[]): Promise<Outcome>;
  /** With more in its environment. */
  failkitWith(environment: Readonly<Record<string, string>>, ...args: readonly string[]): Promise<Outcome>;
  start(...args: readonly string[]): FailkitProcess;
  /** Boots the machine; a writer begins on its second disk. */
  boot(): Promise<void>;
  checkpoints(): Promise<readonly string[]>;
}

export interface LibvirtSiteOptions {
  readonly iothread?: boolean;
  readonly dataFormat?: 'raw' | 'qcow2';
  /** The agent is on another host, so to speak. */
  readonly ssh?: boolean;
}

export async function openLibvirtSite({
  iothread = false,
  dataFormat = 'qcow2',
  ssh = false,
}: LibvirtSiteOptions = {}): Promise<LibvirtSite> {
  const peer = await startLibvirt({ ssh });
  const { folder } = peer;
  const disks: DomainDisk[] = [
    { label: 'vda', path: await makeGuestDisk(folder, { format: 'qcow2' }), format: 'qcow2' },
    {
      label: 'vdb',
      path: await makeDataDisk(folder, { format: dataFormat, sizeMiB: 48, name: 'data' }),
      format: dataFormat,
      iothread,
    },
  ];
  const guest = await defineDomain(peer, { name: 'web', disks });
  const options = { folder };
  const checkpoints = async () =>
    (await peer.virsh('checkpoint-list', guest.name, '--name')).split('\n').filter((name) => name !== '');
  const configure: LibvirtSite['configure'] = async ({ machine = {}, source = {}, limits = {} } = {}) => {
    const kvm = {
      type: 'kvm',
      libvirt: peer.sshUri ?? peer.uri,
      scratch: join(folder, 'scratch'),
      scratchFreeMiBMin: 1,
      ...source,
    };
    const config = {
      repository: { target: 'filesystem', directory: 'bucket' },
      keys: { provider: 'local-key', file: 'local.key' },
      state: 'state',
      machines: [{ name: 'web', quiesce: 'off', source: kvm, ...machine }],
      limits,
    };
    await writeFile(join(folder, 'failkit.yaml'), stringify(config));
  };
  const withConfig = (args: readonly string[]) => ['--config', join(folder, 'failkit.yaml'), ...args];
  await mkdir(join(folder, 'scratch'));
  // On another host nobody gives QEMU a folder of its own in it.
  await chmod(join(folder, 'scratch'), ssh ? 0o777 : 0o711);
  await configure();
  return {
    folder,
    peer,
    guest,
    disks,
    configure,
    failkit: (...args) => runFailkit(withConfig(args), options),
    failkitWith: (environment, ...args) => runFailkit(withConfig(args), { folder, environment }),
    start: (...args) => startFailkit(withConfig(args), options),
    boot: () => boot(guest),
    checkpoints,
    [Symbol.asyncDispose]: () => peer.stop(),
  };
}

async function boot(guest: LibvirtGuest): Promise<void> {
  await guest.start();
  const { boot: count } = await guest.ready();
  const prepare = count === 1 ? 'mkfs.ext4 -q /dev/vdb && mkdir -p /data/vdb && mount /dev/vdb /data/vdb' : 'true';
  const { code, output } = await guest.run(prepare);
  if (code !== 0) throw new Error(output);
  await startWriter(guest, { file: '/data/vdb/slots', mib: 16 });
}

/** The machine stands still from before the run until its snapshot is there, and writes on while it is read. */
export async function observeRun(site: LibvirtSite, ...args: readonly string[]): Promise<ObservedRun> {
  const { peer, guest, disks } = site;
  const before = new Set(await site.checkpoints());
  await peer.virsh('suspend', guest.name);
  const run = site.start(...args);
  const oracle = new Map<string, string>();
  try {
    const made = async () => (await site.checkpoints()).some((name) => !before.has(name));
    if (!(await madeBeforeItEnds(made, run.ended))) return { outcome: await run.ended, oracle };
    for (const { label, path, format } of disks) {
      const copy = join(site.folder, `oracle-${before.size}-${Date.now()}-${label}.raw`);
      await qemuImg(['convert', '-U', '-f', format, '-O', 'raw', path, copy]);
      oracle.set(label, copy);
    }
  } finally {
    await peer.virsh('resume', guest.name);
  }
  return { outcome: await run.ended, oracle };
}
