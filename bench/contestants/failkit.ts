import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { measure } from '../measure.ts';
import { bothCompressions, type Compression, type Contestant, type Place } from './contestant.ts';

const ownLauncher = join(import.meta.dirname, '../../bin/failkit');
export const configFile = 'failkit.yaml';
export const machineName = 'machine';

export const failkit: Contestant = {
  name: 'failkit',
  peer: null,
  compressions: bothCompressions,
  note: null,
  version: async () => `failkit ${(await measure({ command: ownLauncher, args: ['--version'] })).stdout.trim()}`,
  async open(place, compression) {
    const run = await openFailkit(place, compression, `path: ${place.image}`);
    return {
      storeFolder: null,
      seed: () => run('seed'),
      resync: () => run('resync'),
      restore: async (to) => ({
        measured: await run('restore', machineName, '--to', to),
        image: join(to, 'disk.raw'),
      }),
    };
  },
};

/** What the configuration refers to. */
export function secretsOf(place: Pick<Place, 'accessKeyId' | 'secretAccessKey'>): Readonly<Record<string, string>> {
  return { S3_KEY: place.accessKeyId, S3_SECRET: place.secretAccessKey };
}

/** A repository in the bucket. `disk`: where the disk is, as the configuration says it. */
export async function openFailkit(place: Place, compression: Compression, disk: string) {
  await writeFile(
    join(place.folder, configFile),
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
  - name: ${machineName}
    source: { type: image, disks: [{ label: disk, ${disk} }] }
`,
  );
  const run = (...args: readonly string[]) =>
    measure({ command: place.launcher, args, env: secretsOf(place), cwd: place.folder });
  await run('init', '--kit', 'kit');
  return run;
}
