import { lstatSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';

/** The files of the clone itself, which fill the image: programs, sources, texts, as any server has. */

export interface RealFile {
  /** Relative to the folder. */
  readonly path: string;
  readonly bytes: number;
}

export const clone = join(import.meta.dirname, '..');
export const packages = join(clone, 'node_modules');

/**
 * Plain files in a stable order. Odd names are left out, for they would need quoting in a tool's script; hidden folders too,
 * because other tools keep caches there that come and go.
 */
export function filesBelow(folder: string): readonly RealFile[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1))
    .filter((path) => /^[A-Za-z0-9@._/+-]+$/.test(path) && !/(^|\/)\./.test(path))
    .sort()
    .map((path) => ({ path, bytes: statSync(join(folder, path)).size }));
}

/** What hidden folders hold directly below: caches of other tools, which a copy of the whole folder takes along. */
export function hiddenBytesIn(folder: string): number {
  const hidden = readdirSync(folder, { withFileTypes: true }).filter(
    (entry) => entry.isDirectory() && entry.name.startsWith('.'),
  );
  const files = hidden.flatMap(({ name }) =>
    readdirSync(join(folder, name), { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile()),
  );
  return files.reduce((sum, { parentPath, name }) => sum + (lstatSync(join(parentPath, name)).size + 4095), 0);
}
