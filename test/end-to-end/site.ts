/** A customer's site: a host with the agent's configuration, and a machine with two disks. */
import { createHash, createHmac, randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { canaries } from '../canary.ts';
import type { S3Peer } from '../peers/s3.ts';
import { type FailkitProcess, type Outcome, runFailkit, startFailkit } from './failkit-process.ts';

const mebibyte = 1024 * 1024;
export const machineName = 'accounting-db';
export const diskLabels = ['system', 'data'] as const;
export type DiskLabel = (typeof diskLabels)[number];
/** Neither is a multiple of the block size. */
const capacities: Readonly<Record<DiskLabel, number>> = { system: 12 * mebibyte + 512, data: 20 * mebibyte + 4096 };

export type Settings = Readonly<Record<string, unknown>>;

export interface Site extends AsyncDisposable {
  readonly folder: string;
  readonly environment: Record<string, string>;
  /** Everything that `settings` names replaces the site's own setting of that name. */
  configure(settings?: Settings): Promise<string>;
  failkit(...args: string[]): Promise<Outcome>;
  start(...args: string[]): FailkitProcess;
  diskFile(label: DiskLabel): string;
}

export interface SitePeers {
  readonly s3: Pick<S3Peer, 'region' | 'accessKeyId' | 'secretAccessKey' | 'caFile'>;
  /** Where the agent finds the bucket: the server itself, or a proxy in front of it. */
  readonly s3Endpoint: string;
  readonly bucket: string;
  readonly kms: {
    readonly region: string;
    readonly credentials: { readonly accessKeyId: string; readonly secretAccessKey: { reveal(): string } };
  };
  readonly kmsEndpoint: string;
  readonly keyId: string;
}

const nobody = { region: 'none', accessKeyId: 'none', secretAccessKey: { reveal: () => 'none' } };

/** Of a site that is configured to use other stores and keys. */
export const noPeers: SitePeers = {
  s3: { ...nobody, caFile: null },
  s3Endpoint: '',
  bucket: '',
  kms: { region: 'none', credentials: nobody },
  kmsEndpoint: '',
  keyId: '',
};

/** Its own folder, state and agent key. `disksOf`: another host that sees the same machine. */
export async function makeSite(peers: SitePeers, options: { readonly disksOf?: Site } = {}): Promise<Site> {
  const folder = await mkdtemp(join(tmpdir(), 'failkit-site-'));
  const diskFile = (label: DiskLabel) => options.disksOf?.diskFile(label) ?? join(folder, `disks/${label}.raw`);
  if (options.disksOf === undefined) {
    await mkdir(join(folder, 'disks'));
    for (const label of diskLabels) await writeFile(diskFile(label), firstContent(label));
  }
  const environment = {
    S3_ACCESS_KEY: peers.s3.accessKeyId,
    S3_SECRET: peers.s3.secretAccessKey.reveal(),
    KMS_ACCESS_KEY: peers.kms.credentials.accessKeyId,
    KMS_SECRET: peers.kms.credentials.secretAccessKey.reveal(),
  };
  const configure = async (settings: Settings = {}): Promise<string> => {
    const file = join(folder, 'failkit.yaml');
    await writeFile(file, stringify({ ...settingsOf(peers, diskFile), ...settings }));
    return file;
  };
  await configure();
  const withConfig = (args: readonly string[]) => ['--config', join(folder, 'failkit.yaml'), ...args];
  return {
    folder,
    environment,
    configure,
    diskFile,
    failkit: (...args) => runFailkit(withConfig(args), { folder, environment }),
    start: (...args) => startFailkit(withConfig(args), { folder, environment }),
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }),
  };
}

export function settingsOf(peers: SitePeers, diskFile: (label: DiskLabel) => string): Settings {
  const accessKey = (name: string) => ({
    from: 'access-key',
    accessKeyId: `\${env:${name}_ACCESS_KEY}`,
    secretAccessKey: `\${env:${name}_SECRET}`,
  });
  return {
    repository: {
      target: 's3',
      bucket: peers.bucket,
      prefix: 'replicas/berlin',
      region: peers.s3.region,
      endpoint: peers.s3Endpoint,
      pathStyle: true,
      ...(peers.s3.caFile !== null && { caFile: peers.s3.caFile }),
      credentials: accessKey('S3'),
    },
    keys: {
      provider: 'aws-kms',
      keyId: peers.keyId,
      region: peers.kms.region,
      endpoint: peers.kmsEndpoint,
      credentials: accessKey('KMS'),
    },
    state: 'state',
    machines: [
      {
        name: machineName,
        source: { type: 'image', disks: diskLabels.map((label) => ({ label, path: diskFile(label) })) },
      },
    ],
  };
}

/** Data that does not compress, data that does, the plaintext that must never be seen outside, and free space. */
function firstContent(label: DiskLabel): Uint8Array {
  const disk = Buffer.alloc(capacities[label]);
  const half = disk.length >> 1;
  randomBytes(half).copy(disk);
  Buffer.from('the quick brown fox jumps over the lazy dog\n'.repeat(20_000)).copy(disk, half);
  for (const offset of [0, 70_000, half + 100, disk.length - 64]) disk.set(canaries().plaintext, offset);
  return disk;
}

/** Overwrites one place in each of `blocks` blocks, spread over the disk and different in each `round`. */
export async function changeDisk(site: Site, label: DiskLabel, round: number, blocks = 12): Promise<void> {
  const file = await open(site.diskFile(label), 'r+');
  try {
    const blockBytes = 64 * 1024;
    const blockCount = Math.floor(capacities[label] / blockBytes);
    for (let i = 0; i < blocks; i++) {
      const block = (i * 17 + round * 5) % blockCount;
      const bytes = createHmac('sha512', `round ${round}`).update(`${label} ${i}`).digest();
      await file.write(bytes, 0, bytes.length, block * blockBytes + 1_000);
    }
  } finally {
    await file.close();
  }
}

async function sha256Of(path: string): Promise<string> {
  return createHash('sha256')
    .update(await readFile(path))
    .digest('hex');
}

export async function sha256OfDisks(site: Site): Promise<Record<DiskLabel, string>> {
  return { system: await sha256Of(site.diskFile('system')), data: await sha256Of(site.diskFile('data')) };
}

/** Of the raw files that `restore --to folder` made. */
export async function sha256OfRestored(folder: string): Promise<Record<DiskLabel, string>> {
  return { system: await sha256Of(join(folder, 'system.raw')), data: await sha256Of(join(folder, 'data.raw')) };
}
