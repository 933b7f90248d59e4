import { randomUUID } from 'node:crypto';
import { constants } from 'node:fs';
import { type FileHandle, link, lstat, open, rename, rm, unlink } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { KeyFileUnusable } from './errors.ts';

/** No key file of ours comes near it; a wrong path (a disk image, say) must not be read whole. */
const keyFileBytesMax = 64 * 1024;
const ownerOnly = 0o600;
const groupAndWorld = 0o077;

/**
 * Bytes of a file that only its owner may read. Follows symlinks and checks the file that it really opened.
 * Throws KeyFileUnusable when it is missing, not a plain file, too large, or open to group or world.
 * On Windows mode bits say nothing: there the folder's access list has to protect the file.
 */
export async function readKeyFile(path: string): Promise<Uint8Array> {
  await using file = await openForReading(path);
  const stat = await file.stat();
  if (!stat.isFile()) throw new KeyFileUnusable(`key file ${path} is not a plain file: give the path of the key file`);
  if (process.platform !== 'win32' && (stat.mode & groupAndWorld) !== 0)
    throw new KeyFileUnusable(tooOpen(path, stat.mode));
  if (stat.size > keyFileBytesMax)
    throw new KeyFileUnusable(
      `key file ${path} has ${stat.size} bytes, a key file has at most ${keyFileBytesMax}: is it the right file?`,
    );
  return file.readFile();
}

/**
 * Makes the file with mode 0600, durably, and whole or not at all: a process that is killed here leaves nothing that could be
 * taken for a damaged key. Throws KeyFileUnusable if anything has that name: keys are never overwritten.
 */
export async function createKeyFile(path: string, content: Uint8Array): Promise<void> {
  if (await exists(path)) throw taken(path);
  const unfinished = `${path}.${randomUUID()}.unfinished`;
  try {
    await writeUnfinished(path, unfinished, content);
    await giveName(unfinished, path);
    await syncFolderOf(path);
  } catch (cause) {
    await rm(unfinished, { force: true });
    if (cause instanceof KeyFileUnusable) throw cause;
    throw new KeyFileUnusable(`key file ${path} could not be written: check free space and permissions of its folder`, {
      cause,
    });
  }
}

async function writeUnfinished(path: string, unfinished: string, content: Uint8Array): Promise<void> {
  await using file = await openForCreating(unfinished, path);
  await file.writeFile(content);
  await file.sync();
}

/** By a link, which never replaces anything; by renaming where the file system has no links (a USB stick for the kit). */
async function giveName(unfinished: string, path: string): Promise<void> {
  try {
    await link(unfinished, path);
  } catch (cause) {
    if (errorCode(cause) === 'EEXIST') throw taken(path, cause);
    if (await exists(path)) throw taken(path, cause);
    await rename(unfinished, path);
    return;
  }
  await unlink(unfinished);
}

async function exists(path: string): Promise<boolean> {
  return await lstat(path).then(
    () => true,
    (cause: unknown) => {
      if (errorCode(cause) !== 'ENOENT')
        throw new KeyFileUnusable(`key file ${path} ${whyNotCreatable(cause)}`, { cause });
      return false;
    },
  );
}

function taken(path: string, cause?: unknown): KeyFileUnusable {
  return new KeyFileUnusable(
    `key file ${path} already exists, and a key is never overwritten: choose another path, or move it away`,
    { cause },
  );
}

async function openForReading(path: string): Promise<FileHandle> {
  try {
    // Without O_NONBLOCK, opening a named pipe would hang until somebody writes to it.
    return await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (cause) {
    throw new KeyFileUnusable(`key file ${path} ${whyNotReadable(cause)}`, { cause });
  }
}

async function openForCreating(unfinished: string, path: string): Promise<FileHandle> {
  try {
    return await open(unfinished, 'wx', ownerOnly);
  } catch (cause) {
    throw new KeyFileUnusable(`key file ${path} ${whyNotCreatable(cause)}`, { cause });
  }
}

/** A new file survives a power cut only once its folder's own entry is on disk. Windows can't sync a folder. */
async function syncFolderOf(path: string): Promise<void> {
  if (process.platform === 'win32') return;
  await using folder = await open(dirname(resolve(path)), 'r');
  await folder.sync();
}

function whyNotReadable(cause: unknown): string {
  const code = errorCode(cause);
  if (code === 'ENOENT') return 'does not exist: check the path, or restore the file from your copy';
  if (code === 'EACCES' || code === 'EPERM') return 'may not be read by this user: run as its owner, or chown it';
  return `can't be opened (${code}): check the path`;
}

function whyNotCreatable(cause: unknown): string {
  const code = errorCode(cause);
  if (code === 'ENOENT') return "can't be made because its folder does not exist: make the folder first";
  return `can't be made (${code}): check the folder's permissions`;
}

function tooOpen(path: string, mode: number): string {
  const shown = (mode & 0o777).toString(8).padStart(4, '0');
  return `key file ${path} is open to others (mode ${shown}): run chmod 600 ${path}, and think about who read it until now`;
}

function errorCode(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : 'unknown error';
}
