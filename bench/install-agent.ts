import { cpSync, mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { measure } from './measure.ts';

/** The agent as an operator has it: built, without sources. From sources each start takes four times the CPU time. */

const clone = join(import.meta.dirname, '..');
const packaged = ['bin', 'package.json', 'config.schema.json'];

/** Into a new folder; returns the launcher. A build in the clone itself would change what other tests run. */
export async function installAgent(folder: string): Promise<string> {
  mkdirSync(folder);
  const bundler = join(clone, 'node_modules/rolldown/bin/cli.mjs');
  await measure({
    command: process.execPath,
    cwd: clone,
    args: [bundler, '-c', join(clone, 'rolldown.config.ts'), '--dir', join(folder, 'dist/agent')],
  });
  for (const name of packaged) cpSync(join(clone, name), join(folder, name), { recursive: true });
  symlinkSync(join(clone, 'node_modules'), join(folder, 'node_modules'));
  return join(folder, 'bin/failkit');
}
