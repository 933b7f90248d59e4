import { randomBytes } from 'node:crypto';
import { utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** A configuration with machines of one small image each, and a bucket that is a directory; all of it in one folder. */
export function writeImageMachines(folder: string, names: readonly string[]): void {
  for (const name of names) writeImage(folder, name);
  const machines = names.map(
    (name) => `  - { name: ${name}, source: { type: image, disks: [{ label: root, path: ${name}.raw }] } }\n`,
  );
  writeFileSync(
    join(folder, 'failkit.yaml'),
    `repository: { target: filesystem, directory: bucket }
keys: { provider: local-key, file: local.key }
state: state
machines:
${machines.join('')}`,
  );
}

/** Other content than before; old enough not to be taken for one that is being written. */
function writeImage(folder: string, name: string): void {
  const file = join(folder, `${name}.raw`);
  writeFileSync(file, randomBytes(300_000));
  const longAgo = new Date(Date.now() - 3_600_000);
  utimesSync(file, longAgo, longAgo);
}
