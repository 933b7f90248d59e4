import { mkdir } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { peerFolder } from '../../test/peers/server-process.ts';
import { measure } from '../measure.ts';
import { bothCompressions, type Contestant, password } from './contestant.ts';

const peer = 'bench/kopia';
const command = (): string => join(peerFolder(peer), 'kopia');

export const kopia: Contestant = {
  name: 'kopia',
  peer,
  compressions: bothCompressions,
  note: null,
  version: async () => {
    const { stdout } = await measure({ command: command(), args: ['--version'] });
    // Then the build's revision and origin, which a compiled module does not know.
    return `kopia ${stdout.trim().split(' ')[0]}`;
  },
  async open(place, compression) {
    const config = join(place.folder, 'repository.config');
    const env = { KOPIA_PASSWORD: password, KOPIA_CHECK_FOR_UPDATES: 'false' };
    const run = (...args: readonly string[]) =>
      measure({ command: command(), args: [`--config-file=${config}`, `--log-dir=${place.folder}`, ...args], env });
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
      storeFolder: null,
      seed: () => snapshot(),
      resync: () => snapshot('--force-hash=100'),
      restore: async (to) => ({
        measured: await run('restore', '--no-progress', dirname(place.image), to, '--snapshot-time=latest'),
        image: join(to, basename(place.image)),
      }),
    };
  },
};
