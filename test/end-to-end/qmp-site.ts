/** A host with a QEMU whose guest never stops writing, and an agent that protects it by QEMU's own monitor. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { listDisks } from '../../hypervisors/kvm/qemu-disks.ts';
import { QmpClient } from '../../hypervisors/kvm/qmp-client.ts';
import { bootGuest, type Guest, type GuestDisk, makeDataDisk, makeGuestDisk, qemuImg } from '../peers/guest.ts';
import { startWriter } from '../peers/guest-writer.ts';
import { madeBeforeItEnds, type ObservedRun } from './differing-disks.ts';
import { type FailkitProcess, type Outcome, runFailkit, startFailkit } from './failkit-process.ts';

const never = new AbortController().signal;
const labels = ['devdisk0', 'devdisk1'];

export interface QmpSite extends AsyncDisposable {
  readonly folder: string;
  readonly guest: Guest;
  /** The test's own monitor. */
  readonly monitor: QmpClient;
  readonly scratchFolder: string;
  /** What `machine` and `source` name replaces the site's own settings of those names; the rest stands beside them. */
  configure(settings?: {
    readonly machine?: object;
    readonly source?: object;
    readonly [key: string]: unknown;
  }): Promise<void>;
  failkit(...args: readonly string[]): Promise<Outcome>;
  start(...args: readonly string[]): FailkitProcess;
  /** Boots the machine; a writer begins on its second disk. */
  boot(): Promise<void>;
  /** Names of all bitmaps, a name for each disk that has it. */
  bitmaps(): Promise<readonly string[]>;
  /** Raw copies of the disks, made by another program while the machine stands still. */
  copyDisks(): Promise<ReadonlyMap<string, string>>;
}

export async function openQmpSite({ iothread = false, dataMiB = 48 } = {}): Promise<QmpSite> {
  const folder = await mkdtemp(join(tmpdir(), 'failkit-qmp-'));
  const scratchFolder = join(folder, 'scratch');
  const disks: readonly GuestDisk[] = [
    { path: await makeGuestDisk(folder, { format: 'qcow2' }), format: 'qcow2', iothread },
    {
      path: await makeDataDisk(folder, { format: 'qcow2', sizeMiB: dataMiB, name: 'data' }),
      format: 'qcow2',
      iothread,
    },
  ];
  const qmpSocket = join(folder, 'qmp');
  let running: { readonly guest: Guest; readonly monitor: QmpClient } | null = null;
  const now = () => {
    if (running === null) throw new Error('the machine was not booted');
    return running;
  };
  const end = async () => {
    await running?.monitor[Symbol.asyncDispose]();
    await running?.guest[Symbol.asyncDispose]();
    running = null;
  };
  const configure: QmpSite['configure'] = (settings) => writeConfig({ folder, qmpSocket, scratchFolder }, settings);
  await configure();
  const withConfig = (args: readonly string[]) => ['--config', join(folder, 'failkit.yaml'), ...args];
  let copies = 0;
  return {
    folder,
    scratchFolder,
    get guest() {
      return now().guest;
    },
    get monitor() {
      return now().monitor;
    },
    configure,
    failkit: (...args) => runFailkit(withConfig(args), { folder }),
    start: (...args) => startFailkit(withConfig(args), { folder }),
    async boot() {
      await end();
      const guest = await bootGuest({ disks, qmpSocket });
      running = { guest, monitor: await QmpClient.open(guest.testQmpSocket, never) };
      await beginWriting(guest);
    },
    async bitmaps() {
      return (await listDisks(now().monitor, never)).flatMap(({ bitmaps }) => bitmaps.map(({ name }) => name));
    },
    async copyDisks() {
      const made = new Map<string, string>();
      for (const [i, disk] of disks.entries())
        made.set(labels[i] ?? '', await copyDisk(disk, join(folder, `copy-${++copies}.raw`)));
      return made;
    },
    async [Symbol.asyncDispose]() {
      await end();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

async function writeConfig(
  { folder, qmpSocket, scratchFolder }: Readonly<Record<'folder' | 'qmpSocket' | 'scratchFolder', string>>,
  { machine = {}, source = {}, ...rest }: Parameters<QmpSite['configure']>[0] = {},
): Promise<void> {
  const kvm = { type: 'kvm', qmp: qmpSocket, scratch: scratchFolder, scratchFreeMiBMin: 1, ...source };
  const config = {
    repository: { target: 'filesystem', directory: 'bucket' },
    keys: { provider: 'local-key', file: 'local.key' },
    state: 'state',
    ...rest,
    machines: [{ name: 'web', quiesce: 'off', source: kvm, ...machine }],
  };
  await writeFile(join(folder, 'failkit.yaml'), stringify(config));
}

async function copyDisk({ path, format }: GuestDisk, copy: string): Promise<string> {
  await qemuImg(['convert', '-U', '-f', format, '-O', 'raw', path, copy]);
  return copy;
}

async function beginWriting(guest: Guest): Promise<void> {
  const { boot } = await guest.ready();
  const prepare = boot === 1 ? 'mkfs.ext4 -q /dev/vdb && mkdir -p /data/vdb && mount /dev/vdb /data/vdb' : 'true';
  const { code, output } = await guest.run(prepare);
  if (code !== 0) throw new Error(output);
  await startWriter(guest, { file: '/data/vdb/slots', mib: 16 });
}

/** The machine stands still from before the run until its snapshot is there, and writes on while it is read. */
export async function observeRun(site: QmpSite, run: () => FailkitProcess): Promise<ObservedRun> {
  const pointsOf = async () => (await site.bitmaps()).filter((name) => name.includes('-point-'));
  const before = new Set(await pointsOf());
  await site.monitor.run('stop', {}, never);
  const { ended } = run();
  let oracle: ReadonlyMap<string, string> = new Map();
  try {
    const made = async () => (await pointsOf()).filter((name) => !before.has(name)).length === labels.length;
    if (!(await madeBeforeItEnds(made, ended))) return { outcome: await ended, oracle };
    oracle = await site.copyDisks();
  } finally {
    await site.monitor.run('cont', {}, never);
  }
  return { outcome: await ended, oracle };
}
