import { basename, dirname, join } from 'node:path';
import { peerFolder } from '../../test/peers/server-process.ts';
import { measure } from '../measure.ts';
import { type Contestant, password } from './contestant.ts';

const peer = 'bench/rclone';
const command = (): string => join(peerFolder(peer), 'rclone');

export const rclone: Contestant = {
  name: 'rclone crypt',
  peer,
  // It has no other.
  compressions: ['off'],
  note: 'copies the file, encrypted: no deduplication, no blocks, no history; told to look at all of it again, it sends all of it again',
  version: async () => (await measure({ command: command(), args: ['version'] })).stdout.split('\n')[0] ?? '',
  async open(place) {
    const { stdout } = await measure({ command: command(), args: ['obscure', password] });
    const env = {
      RCLONE_CONFIG: join(place.folder, 'rclone.conf'),
      RCLONE_CONFIG_STORE_TYPE: 's3',
      RCLONE_CONFIG_STORE_PROVIDER: 'Minio',
      RCLONE_CONFIG_STORE_ENDPOINT: `http://${place.endpoint}`,
      RCLONE_CONFIG_STORE_REGION: place.region,
      RCLONE_CONFIG_STORE_ACCESS_KEY_ID: place.accessKeyId,
      RCLONE_CONFIG_STORE_SECRET_ACCESS_KEY: place.secretAccessKey,
      RCLONE_CONFIG_SEALED_TYPE: 'crypt',
      RCLONE_CONFIG_SEALED_REMOTE: `store:${place.bucket}`,
      RCLONE_CONFIG_SEALED_PASSWORD: stdout.trim(),
    };
    const copy = (...args: readonly string[]) => measure({ command: command(), args: ['copy', ...args], env });
    return {
      storeFolder: null,
      seed: () => copy(dirname(place.image), 'sealed:'),
      resync: () => copy('--ignore-times', dirname(place.image), 'sealed:'),
      mount: (at) => ({
        program: { command: command(), args: ['mount', '--read-only', 'sealed:', at], env },
        image: join(at, basename(place.image)),
      }),
      restore: async (to) => ({ measured: await copy('sealed:', to), image: join(to, basename(place.image)) }),
    };
  },
};
