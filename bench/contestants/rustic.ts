import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { peerFolder } from '../../test/peers/server-process.ts';
import { measure } from '../measure.ts';
import { bothCompressions, type Compression, type Contestant, type Place, password } from './contestant.ts';

const peer = 'bench/rustic';
const command = (): string => join(peerFolder(peer), 'bin/rustic');

export const rustic: Contestant = {
  name: 'rustic',
  peer,
  compressions: bothCompressions,
  note: 'at level 1 of zstd, as the others; its levels reach down to -7, which store more',
  version: async () => (await measure({ command: command(), args: ['--version'] })).stdout.trim(),
  async open(place, compression) {
    const profile = join(place.folder, 'rustic');
    await writeFile(`${profile}.toml`, profileOf(place));
    const run = (...args: readonly string[]) => measure({ command: command(), args: ['-P', profile, ...args] });
    await run('init', '--set-compression', levelOf(compression));
    return {
      storeFolder: null,
      seed: () => run('backup', place.image),
      resync: () => run('backup', '--force', place.image),
      restore: async (to) => ({
        measured: await run('restore', 'latest', to),
        image: join(to, place.image),
      }),
    };
  },
};

/** Of zstd; 0 is none at all. */
function levelOf(compression: Compression): string {
  return compression === 'off' ? '0' : '1';
}

function profileOf(place: Place): string {
  return `[global]
no-progress = true
log-level = "warn"
[repository]
repository = "opendal:s3"
password = "${password}"
cache-dir = "${join(place.folder, 'cache')}"
[repository.options]
endpoint = "http://${place.endpoint}"
region = "${place.region}"
bucket = "${place.bucket}"
root = "/"
access_key_id = "${place.accessKeyId}"
secret_access_key = "${place.secretAccessKey}"
`;
}
