import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { peerFolder } from '../../test/peers/server-process.ts';
import { configFile, secretsOf } from '../contestants/failkit.ts';
import { type Measured, measure } from '../measure.ts';
import type { LibvirtStand } from './libvirt-stand.ts';

/** What copies a running machine of libvirt, and brings its disks back as qcow2 images. */

export const virtnbdbackupPeer = 'bench/virtnbdbackup';

export interface MachineCopy {
  /** Where it stores; null: in the bucket. */
  readonly storeFolder: string | null;
  seed(): Promise<Measured>;
  sync(): Promise<Measured>;
  restore(to: string): Promise<Measured>;
  /** Of a disk, below the folder that it was restored to. */
  restoredName(label: string): string;
}

export interface CopyProgram {
  readonly name: string;
  readonly ours: boolean;
  open(stand: LibvirtStand): Promise<MachineCopy>;
}

export const copyPrograms: readonly CopyProgram[] = [
  { name: 'failkit, S3', ours: true, open: (stand) => openAgent(stand, s3Of(stand), null) },
  { name: 'failkit, folder', ours: true, open: openAgentOnFolder },
  { name: 'virtnbdbackup', ours: false, open: (stand) => openVirtnbdbackup(stand, []) },
  { name: 'virtnbdbackup --compress', ours: false, open: (stand) => openVirtnbdbackup(stand, ['--compress']) },
];

async function openAgentOnFolder(stand: LibvirtStand): Promise<MachineCopy> {
  const directory = join(stand.stand.place.memoryFolder, 'bucket');
  await mkdir(directory);
  return await openAgent(stand, { target: 'filesystem', directory }, directory);
}

function s3Of({ stand: { place } }: LibvirtStand): object {
  const credentials = { from: 'access-key', accessKeyId: `\${env:S3_KEY}`, secretAccessKey: `\${env:S3_SECRET}` };
  return {
    ...{ target: 's3', bucket: place.bucket, region: place.region, endpoint: `http://${place.endpoint}` },
    credentials,
  };
}

async function openAgent(stand: LibvirtStand, repository: object, storeFolder: string | null): Promise<MachineCopy> {
  const { place } = stand.stand;
  const source = { type: 'kvm', libvirt: stand.uri, scratch: stand.scratch };
  const config = {
    repository,
    keys: { provider: 'local-key', file: 'local.key' },
    state: 'state',
    machines: [{ name: stand.domain, source }],
  };
  await writeFile(join(place.folder, configFile), stringify(config));
  const run = (...args: readonly string[]) =>
    measure({ command: place.launcher, args, env: secretsOf(place), cwd: place.folder });
  await run('init', '--kit', 'kit');
  return {
    storeFolder,
    seed: () => run('seed'),
    sync: async () => {
      const measured = await run('sync');
      if (/resync/.test(measured.stdout)) throw new Error(`the checkpoint was not used:\n${measured.stdout}`);
      return measured;
    },
    restore: (to) => run('restore', stand.domain, '--to', to, '--format', 'qcow2'),
    restoredName: (label) => `${label}.qcow2`,
  };
}

async function openVirtnbdbackup(stand: LibvirtStand, options: readonly string[]): Promise<MachineCopy> {
  const storeFolder = join(stand.stand.place.memoryFolder, 'virtnbdbackup');
  // Asked for with every address but the usual one, and of no use here.
  const place = ['--uri', stand.uri, '--user', 'nobody', '--password', 'none'];
  const tool = (name: string): string => join(peerFolder(virtnbdbackupPeer), name);
  const copy = (level: string): Promise<Measured> =>
    measure({
      command: tool('virtnbdbackup'),
      args: [
        ...place,
        ...['--domain', stand.domain, '--level', level, '--output', storeFolder],
        ...['--scratchdir', stand.scratch, '--noprogress', ...options],
      ],
    });
  return {
    storeFolder,
    seed: () => copy('full'),
    sync: () => copy('inc'),
    restore: (to) => {
      const restore = {
        command: tool('virtnbdrestore'),
        args: [
          ...place,
          ...['--input', storeFolder, '--output', to, '--noprogress'],
          ...['--logfile', join(stand.stand.place.folder, 'virtnbdrestore.log')],
        ],
      };
      // It starts a server and connects at once, which on a busy machine is too early for the server; then it ends at its start.
      return measure(restore).catch(() => measure(restore));
    },
    // Under the name that the image of the machine has.
    restoredName: (label) =>
      stand.disks
        .find((disk) => disk.label === label)
        ?.path.split('/')
        .at(-1) ?? label,
  };
}
