import { join } from 'node:path';
import { peerFolder } from '../../test/peers/server-process.ts';
import { measure } from '../measure.ts';
import { bothCompressions, type Contestant, password } from './contestant.ts';

const peer = 'bench/restic';
const command = (): string => join(peerFolder(peer), 'restic');

export const restic: Contestant = {
  name: 'restic',
  peer,
  compressions: bothCompressions,
  note: null,
  version: async () => (await measure({ command: command(), args: ['version'] })).stdout.trim(),
  async open(place, compression) {
    const env = {
      RESTIC_PASSWORD: password,
      RESTIC_REPOSITORY: `s3:http://${place.endpoint}/${place.bucket}`,
      RESTIC_CACHE_DIR: join(place.folder, 'cache'),
      AWS_ACCESS_KEY_ID: place.accessKeyId,
      AWS_SECRET_ACCESS_KEY: place.secretAccessKey,
      AWS_DEFAULT_REGION: place.region,
    };
    const run = (...args: readonly string[]) => measure({ command: command(), args, env });
    await run('init');
    const backup = (...more: readonly string[]) =>
      run('backup', '--quiet', '--compression', compression, ...more, place.image);
    return {
      storeFolder: null,
      seed: () => backup(),
      resync: () => backup('--force'),
      restore: async (to) => ({
        measured: await run('restore', '--quiet', 'latest', '--target', to),
        image: join(to, place.image),
      }),
      mount: (at) => ({
        program: { command: command(), args: ['mount', '--quiet', at], env },
        image: join(at, 'snapshots/latest', place.image),
      }),
    };
  },
};
