import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { MemoryStore } from '../fakes/memory-target.ts';

/** Objects by name; null: removed. */
export type Changes = ReadonlyMap<string, Uint8Array | null>;
export type Objects = ReadonlyMap<string, Uint8Array>;

/** The objects of a bucket directory; files that begin with a dot are the target's own. */
export function readObjects(directory: string): Objects {
  const files = readdirSync(directory, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  const paths = files.map((file) => join(file.parentPath, file.name).slice(directory.length + 1));
  const names = paths.filter((path) => !path.split('/').some((part) => part.startsWith('.'))).sort();
  return new Map(names.map((name) => [name, new Uint8Array(readFileSync(join(directory, name)))]));
}

/** What has to be changed to turn one bucket into another. */
export function difference(from: Objects, to: Objects): Changes {
  const changes = new Map<string, Uint8Array | null>();
  for (const [name, bytes] of to) {
    if (Buffer.compare(from.get(name) ?? new Uint8Array(), bytes) !== 0 || !from.has(name)) changes.set(name, bytes);
  }
  for (const name of from.keys()) if (!to.has(name)) changes.set(name, null);
  return changes;
}

/** Does something to a bucket while some of its objects are changed, and puts everything back. */
export async function withChanges<T>(
  store: MemoryStore,
  original: Objects,
  changes: Changes,
  work: () => Promise<T>,
): Promise<T> {
  for (const [name, bytes] of changes) store.replace(name, bytes);
  try {
    return await work();
  } finally {
    for (const name of changes.keys()) store.replace(name, original.get(name) ?? null);
  }
}
