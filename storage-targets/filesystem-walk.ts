import type { Dir, Dirent } from 'node:fs';
import { opendir, stat } from 'node:fs/promises';
import { join } from 'node:path';

import { syncFolder } from './durable-folders.ts';
import { directoryMissing, errnoOf, filesystemError } from './filesystem-errors.ts';
import { folderOf } from './object-name.ts';
import type { ListedObject, ListOptions } from './storage-target.ts';

const statsAtOnceMax = 32;
const entriesPerRead = 1_024;
const partShape = /^[a-z0-9._-]+$/;

/**
 * The objects below `prefix`, ascending by whole name. Only folders that can hold a wanted name are read. Inside one,
 * a folder sorts as its name with the slash (`a-b`, `a.b`, `a/b`, `ab`), which is the order of the whole names.
 */
export async function* walkDirectory(
  directory: string,
  prefix: string,
  options: ListOptions,
  signal: AbortSignal,
): AsyncGenerator<ListedObject> {
  const limit = options.limit ?? Number.POSITIVE_INFINITY;
  const wanted: Wanted = { directory, prefix, startAfter: options.startAfter ?? '', limit, signal };
  if (limit <= 0) return;
  let yielded = 0;
  for await (const object of withSizes(wanted, walkFolder(wanted, folderOf(prefix)), Math.min(limit, statsAtOnceMax))) {
    yield object;
    if (++yielded >= limit) return;
  }
}

interface Wanted {
  readonly directory: string;
  readonly prefix: string;
  readonly startAfter: string;
  readonly limit: number;
  readonly signal: AbortSignal;
}

async function* walkFolder(wanted: Wanted, folder: string): AsyncGenerator<string> {
  for (const name of await namesIn(wanted, folder)) {
    wanted.signal.throwIfAborted();
    if (name.endsWith('/')) yield* walkFolder(wanted, name);
    else yield name;
  }
}

/**
 * Sorted whole names, folders with their slash. The folder is synced before its names are shown: what a reader builds
 * upon must outlast a power loss, though the process that put it may have been killed before it synced.
 */
async function namesIn(wanted: Wanted, folder: string): Promise<string[]> {
  const path = join(wanted.directory, folder);
  const entries = await opendir(path, { bufferSize: entriesPerRead }).catch((error: unknown) =>
    missingFolder(wanted, folder, error),
  );
  if (entries === null) return [];
  try {
    const names = await smallestNames(wanted, folder, entries);
    if (names.length > 0) await syncFolder(path);
    return names;
  } catch (error) {
    wanted.signal.throwIfAborted();
    return failed(wanted, folder, error);
  }
}

/**
 * A chain's folder may hold 350,000 names, and its newest entry is asked for alone: files beyond the limit are dropped
 * along the way. Folders stay, because an empty one counts for nothing.
 */
async function smallestNames(wanted: Wanted, folder: string, entries: Dir): Promise<string[]> {
  const folders: string[] = [];
  const files: string[] = [];
  for await (const entry of entries) {
    wanted.signal.throwIfAborted();
    const name = nameOf(folder, entry);
    if (name === null || !mayHoldWanted(wanted, name)) continue;
    if (name.endsWith('/')) folders.push(name);
    else if (files.push(name) >= 2 * wanted.limit + entriesPerRead) files.sort().splice(wanted.limit);
  }
  return folders.concat(files).sort();
}

function nameOf(folder: string, entry: Dirent): string | null {
  if (!partShape.test(entry.name)) return null;
  if (entry.isDirectory()) return `${folder}${entry.name}/`;
  return entry.isFile() ? folder + entry.name : null;
}

function mayHoldWanted({ prefix, startAfter }: Wanted, name: string): boolean {
  if (!name.endsWith('/')) return name.startsWith(prefix) && name > startAfter;
  return (name.startsWith(prefix) || prefix.startsWith(name)) && (name > startAfter || startAfter.startsWith(name));
}

/** Looks sizes up a few at a time, so that a long listing is not one file call after another. */
async function* withSizes(wanted: Wanted, names: AsyncIterable<string>, atOnce: number): AsyncGenerator<ListedObject> {
  let batch: string[] = [];
  for await (const name of names) {
    if (batch.push(name) < atOnce) continue;
    yield* await sizes(wanted, batch);
    batch = [];
  }
  yield* await sizes(wanted, batch);
}

async function sizes(wanted: Wanted, names: readonly string[]): Promise<ListedObject[]> {
  const found = await Promise.all(names.map((name) => sizeOf(wanted, name)));
  return found.filter((object) => object !== null);
}

async function sizeOf(wanted: Wanted, name: string): Promise<ListedObject | null> {
  try {
    const { size, mtime } = await stat(join(wanted.directory, name));
    return { name, bytes: size, modified: mtime };
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return null;
    return failed(wanted, name, error);
  }
}

/** A prefix nobody has put anything under has no folder; only the directory itself must be there. */
async function missingFolder(wanted: Wanted, folder: string, error: unknown): Promise<null> {
  const errno = errnoOf(error);
  if (errno !== 'ENOENT' && errno !== 'ENOTDIR') return failed(wanted, folder, error);
  const root = await stat(wanted.directory).catch((cause: unknown) => failed(wanted, '', cause));
  if (!root.isDirectory()) throw directoryMissing(wanted.directory, error);
  return null;
}

function failed(wanted: Wanted, name: string, error: unknown): never {
  if (name === '' && errnoOf(error) === 'ENOENT') throw directoryMissing(wanted.directory, error);
  throw filesystemError(error, { directory: wanted.directory, name, doing: 'listing' });
}
