import { readFileSync, statSync } from 'node:fs';
import { readYaml } from './read-yaml.ts';

/** What a shell may complete, read from a configuration that need not be right: secrets are not resolved, nothing else is looked at. */

export type NamedThing = 'machine' | 'disk';

const configBytesMax = 16 * 1024 * 1024;

/** Names of machines, or labels of their disks, each once. Empty where the file can't be read, or names nothing. */
export function namesInConfig(file: string, kind: NamedThing): readonly string[] {
  const text = readIfPossible(file);
  const yaml = text === null ? { problems: [] } : readYaml(text);
  if ('problems' in yaml) return [];
  const machines = listAt(yaml.value, 'machines');
  const names =
    kind === 'machine'
      ? machines.map((machine) => fieldOf(machine, 'name'))
      : machines
          .flatMap((machine) => listAt(fieldOf(machine, 'source'), 'disks'))
          .map((disk) => fieldOf(disk, 'label'));
  return [...new Set(names.filter((name) => typeof name === 'string'))];
}

function listAt(value: unknown, key: string): readonly unknown[] {
  const list = fieldOf(value, key);
  return Array.isArray(list) ? list : [];
}

function fieldOf(value: unknown, key: string): unknown {
  return typeof value === 'object' && value !== null && Object.hasOwn(value, key) ? Reflect.get(value, key) : null;
}

function readIfPossible(file: string): string | null {
  try {
    const stats = statSync(file);
    return stats.isFile() && stats.size <= configBytesMax ? readFileSync(file, 'utf8') : null;
  } catch {
    // A shell that completes is told nothing of missing or unreadable files.
    return null;
  }
}
