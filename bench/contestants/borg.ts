import { join } from 'node:path';
import { peerFolder } from '../../test/peers/server-process.ts';
import { measure } from '../measure.ts';
import { bothCompressions, type Contestant, password } from './contestant.ts';

const peer = 'bench/borg';
const command = (): string => join(peerFolder(peer), 'borg');

export const borg: Contestant = {
  name: 'borg',
  peer,
  compressions: bothCompressions,
  note: 'speaks no S3: it writes to a folder in memory, and no server takes a share of the cores',
  version: async () => (await measure({ command: command(), args: ['--version'] })).stdout.trim(),
  async open(place, compression) {
    const repository = join(place.memoryFolder, 'borg');
    const env = { BORG_PASSPHRASE: password, BORG_BASE_DIR: place.folder };
    const run = (args: readonly string[], cwd = place.folder) => measure({ command: command(), args, env, cwd });
    await run(['init', '--encryption', 'repokey-blake2', repository]);
    const create = (name: string) =>
      run([
        ...['create', '--compression', compression === 'off' ? 'none' : 'zstd,1'],
        // Otherwise a file that looks unchanged is not read.
        ...['--files-cache', 'disabled', `${repository}::${name}`, place.image],
      ]);
    return {
      storeFolder: repository,
      seed: () => create('first'),
      resync: () => create('second'),
      restore: async (to) => ({
        measured: await run(['extract', `${repository}::first`], to),
        image: join(to, place.image),
      }),
    };
  },
};
