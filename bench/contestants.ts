import { mkdir, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { peerFolder } from '../test/peers/server-process.ts';
import { type Measured, measure, type Program } from './measure.ts';

/** The same work by each program: one image, the same S3 server, a bucket of its own. */

export type Compression = 'fastest' | 'off';

export interface Place {
  /** Host and port. */
  readonly endpoint: string;
  readonly region: string;
  readonly bucket: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  /** For configuration, caches and state; empty. */
  readonly folder: string;
  readonly image: string;
}

export interface Contestant {
  readonly name: string;
  version(): Promise<string>;
  open(place: Place, compression: Compression): Promise<Run>;
}

/** One repository of one program. */
export interface Run {
  seed(): Promise<Measured>;
  /** Reads everything again though nothing changed. */
  resync(): Promise<Measured>;
  /** Into an empty folder. Returns where the image is then. */
  restore(to: string): Promise<{ readonly measured: Measured; readonly image: string }>;
}

const launcher = join(import.meta.dirname, '../bin/failkit');

export const failkit: Contestant = {
  name: 'failkit',
  version: async () => (await measure({ command: launcher, args: ['--version'] })).stdout.trim(),
  async open(place, compression) {
    const env = { S3_KEY: place.accessKeyId, S3_SECRET: place.secretAccessKey };
    await writeFile(
      join(place.folder, 'failkit.yaml'),
      `repository:
  target: s3
  bucket: ${place.bucket}
  region: ${place.region}
  endpoint: http://${place.endpoint}
  credentials: { from: access-key, accessKeyId: '\${env:S3_KEY}', secretAccessKey: '\${env:S3_SECRET}' }
keys: { provider: local-key, file: local.key }
state: state
compression: { level: ${compression === 'off' ? 0 : 1} }
machines:
  - name: machine
    source: { type: image, disks: [{ label: disk, path: ${place.image} }] }
`,
    );
    const run = (...args: readonly string[]) => measure({ command: launcher, args, env, cwd: place.folder });
    await run('init', '--kit', 'kit');
    return {
      seed: () => run('seed'),
      resync: () => run('resync'),
      restore: async (to) => ({
        measured: await run('restore', 'machine', '--to', to),
        image: join(to, 'disk.raw'),
      }),
    };
  },
};

export const restic: Contestant = {
  name: 'restic',
  version: async () => (await measure(resticProgram(['version'], {}))).stdout.trim(),
  async open(place, compression) {
    const env = {
      RESTIC_PASSWORD: 'benchmark',
      RESTIC_REPOSITORY: `s3:http://${place.endpoint}/${place.bucket}`,
      RESTIC_CACHE_DIR: join(place.folder, 'cache'),
      AWS_ACCESS_KEY_ID: place.accessKeyId,
      AWS_SECRET_ACCESS_KEY: place.secretAccessKey,
      AWS_DEFAULT_REGION: place.region,
    };
    const run = (...args: readonly string[]) => measure(resticProgram(args, env));
    await run('init');
    const backup = (...more: readonly string[]) =>
      run('backup', '--quiet', '--compression', compression, ...more, place.image);
    return {
      seed: () => backup(),
      resync: () => backup('--force'),
      restore: async (to) => ({
        measured: await run('restore', '--quiet', 'latest', '--target', to),
        image: join(to, place.image),
      }),
    };
  },
};

function resticProgram(args: readonly string[], env: Readonly<Record<string, string>>): Program {
  return { command: join(peerFolder('bench/restic'), 'restic'), args, env };
}

export const kopia: Contestant = {
  name: 'kopia',
  version: async () => {
    const program = { command: join(peerFolder('bench/kopia'), 'kopia'), args: ['--version'] };
    return `kopia ${(await measure(program)).stdout.trim()}`;
  },
  async open(place, compression) {
    const config = join(place.folder, 'repository.config');
    const env = { KOPIA_PASSWORD: 'benchmark', KOPIA_CHECK_FOR_UPDATES: 'false' };
    const program = join(peerFolder('bench/kopia'), 'kopia');
    const run = (...args: readonly string[]) =>
      measure({ command: program, args: [`--config-file=${config}`, `--log-dir=${place.folder}`, ...args], env });
    await mkdir(join(place.folder, 'cache'));
    await run(
      ...['repository', 'create', 's3', `--bucket=${place.bucket}`, `--endpoint=${place.endpoint}`, '--disable-tls'],
      ...[`--access-key=${place.accessKeyId}`, `--secret-access-key=${place.secretAccessKey}`],
      ...[`--region=${place.region}`, `--cache-directory=${join(place.folder, 'cache')}`],
    );
    await run('policy', 'set', '--global', `--compression=${compression === 'off' ? 'none' : 'zstd-fastest'}`);
    const snapshot = (...more: readonly string[]) =>
      run('snapshot', 'create', '--no-progress', ...more, dirname(place.image));
    return {
      seed: () => snapshot(),
      resync: () => snapshot('--force-hash=100'),
      restore: async (to) => ({
        measured: await run('restore', '--no-progress', dirname(place.image), to, '--snapshot-time=latest'),
        image: join(to, basename(place.image)),
      }),
    };
  },
};
