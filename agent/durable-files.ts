import { randomUUID } from 'node:crypto';
import {
  closeSync,
  existsSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  renameSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, resolve } from 'node:path';

/** Small files and folders of the agent's own that are whole or not there, also after a kill or a power loss. */

const ownerOnlyFile = 0o600;
const ownerOnlyFolder = 0o700;

/** Makes a folder and those above it that are missing, and makes their names durable. */
export function makeDurableFolder(path: string, mode = ownerOnlyFolder): void {
  const folder = resolve(path);
  const above = dirname(folder);
  if (above === folder) return;
  if (!existsSync(above)) makeDurableFolder(above, mode);
  mkdirSync(folder, { recursive: true, mode });
  // Even if it was there already: whoever made it may have been killed right afterwards.
  syncFolder(above);
}

/** False when the name is taken; what is there stays. */
export function createDurableFile(path: string, content: string | Uint8Array): boolean {
  const unfinished = writeUnfinished(path, content);
  try {
    linkSync(unfinished, path);
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error;
    return false;
  } finally {
    unlinkSync(unfinished);
  }
  syncFolder(dirname(resolve(path)));
  return true;
}

export function replaceDurableFile(path: string, content: string | Uint8Array): void {
  renameSync(writeUnfinished(path, content), path);
  syncFolder(dirname(resolve(path)));
}

/** A file next to `path`, whole and durable under another name. */
function writeUnfinished(path: string, content: string | Uint8Array): string {
  const unfinished = `${path}.${randomUUID()}.unfinished`;
  const descriptor = openSync(unfinished, 'wx', ownerOnlyFile);
  try {
    writeFileSync(descriptor, content);
    fsyncSync(descriptor);
  } catch (error) {
    unlinkSync(unfinished);
    throw error;
  } finally {
    closeSync(descriptor);
  }
  return unfinished;
}

/** Windows can't open folders; there the file system journals names by itself. */
function syncFolder(path: string): void {
  if (process.platform === 'win32') return;
  const descriptor = openSync(path, 'r');
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}
