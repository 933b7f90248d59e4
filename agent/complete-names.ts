import { parseArgs } from 'node:util';
import { findConfigFile } from './config/find-config.ts';
import { namesInConfig } from './config/names-in-config.ts';

/**
 * What the completion scripts ask while somebody types: `failkit names --of machine`, one name a line. No command like the others,
 * because loading all of them takes most of a second. Asks no network, and is never an error.
 */
export const namesVerb = 'names';

export function completeNames(args: readonly string[]): string {
  const { values } = parseArgs({
    args: [...args],
    options: { of: { type: 'string' }, config: { type: 'string' } },
    strict: false,
  });
  const file = typeof values.config === 'string' ? values.config : findConfigFile();
  const names = file === null ? [] : namesInConfig(file, values.of === 'disk' ? 'disk' : 'machine');
  return names
    .filter((name) => !name.includes('\n'))
    .map((name) => `${name}\n`)
    .join('');
}
