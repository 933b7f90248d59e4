import { createHash, randomUUID } from 'node:crypto';
import type { Stats } from 'node:fs';
import { type FileHandle, link, mkdir, open, readdir, stat, unlink } from 'node:fs/promises';
import { join, resolve } from 'node:path';

import { DurableFolders, syncFolder } from './durable-folders.ts';
import {
  AccessDenied,
  ChecksumRefused,
  ObjectExists,
  ObjectNotFound,
  RangeInvalid,
  RequestRefused,
  StoreUnavailable,
  Unsupported,
} from './errors.ts';
import { directoryMissing, errnoOf, filesystemError, type Where } from './filesystem-errors.ts';
import { walkDirectory } from './filesystem-walk.ts';
import { checkListPrefix, checkObjectName, folderOf } from './object-name.ts';
import {
  type ByteRange,
  type GetOptions,
  type ObjectInfo,
  type Pace,
  type PutOptions,
  type StorageTarget,
  wholeObjectBytesMax,
} from './storage-target.ts';

export interface FilesystemOptions {
  /** Made by the operator; a missing one is an error, because an unmounted share would otherwise fill the mount point. */
  readonly directory: string;
}

/** The tilde is outside the alphabet of object names, so no object can ever be mistaken for an unfinished one. */
const incomingFolder = '.incoming~';
const leftoverAgeMs = 60 * 60 * 1000;
const leftoversPerOpenMax = 1_000;

/**
 * Objects are files of one directory, on one file system that has hard links. A put writes and syncs a file in
 * `.incoming~/`, then link(2) gives it its name: the name appears at once, whole, and only if nobody has it.
 * File calls cannot be interrupted, so cancellation takes effect between them. Emptied folders stay: removing one
 * could pull it from under another process's put.
 */
export async function openFilesystemTarget(options: FilesystemOptions): Promise<StorageTarget> {
  const store: Store = {
    directory: resolve(options.directory),
    folders: new DurableFolders(resolve(options.directory)),
  };
  const { directory } = store;
  await checkDirectory(directory);
  await removeLeftovers(directory);
  return {
    description: directory,
    putIfAbsent: (name, bytes, putOptions, signal) => putIfAbsent(store, name, bytes, putOptions, signal),
    get: (name, range, signal, getOptions) => getObject(directory, name, range, signal, getOptions),
    head: (name, signal) => headObject(directory, name, signal),
    list(prefix, listOptions, signal) {
      checkListPrefix(prefix);
      return walkDirectory(directory, prefix, listOptions, signal);
    },
    delete: (names, signal) => deleteObjects(directory, names, signal),
    extendRetention: () => Promise.reject(new Unsupported(`${directory}: a directory has no object lock`)),
    now: (signal) => fileSystemTime(directory, signal),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

/** Written and hashed at a time. */
const pieceBytes = 2 ** 20;
const atOnce: Pace = (most) => most;

interface Store {
  readonly directory: string;
  readonly folders: DurableFolders;
}

async function checkDirectory(directory: string): Promise<void> {
  const found = await named(stat(directory), { directory, name: '', doing: 'looking at it' });
  if (!found.isDirectory()) throw directoryMissing(directory, null);
}

async function putIfAbsent(
  store: Store,
  name: string,
  bytes: Uint8Array,
  options: PutOptions,
  signal: AbortSignal,
): Promise<void> {
  checkObjectName(name);
  const { directory } = store;
  if (options.retainUntil) throw new Unsupported(`${name} in ${directory}: a directory has no object lock`);
  signal.throwIfAborted();
  const where: Where = { directory, name, doing: 'putting' };
  const writing = putNamed(store, writeIncoming(directory, bytes, options.pace), where);
  const { path: incoming, sha256 } = await writing.catch((error: unknown) => {
    signal.throwIfAborted();
    throw error;
  });
  try {
    signal.throwIfAborted();
    // A directory records no checksum, so it is checked here: what becomes durable is what was sealed.
    if (Buffer.compare(sha256, options.sha256) !== 0) {
      throw new ChecksumRefused(
        `${name} in ${directory}: the bytes to put do not have the SHA-256 that came with them`,
      );
    }
    await putNamed(store, linkObject(store, incoming, name), where);
  } finally {
    await removeIncoming(incoming);
  }
}

interface Incoming {
  readonly path: string;
  readonly sha256: Uint8Array;
}

async function writeIncoming(directory: string, bytes: Uint8Array, pace: Pace = atOnce): Promise<Incoming> {
  const folder = join(directory, incomingFolder);
  const path = join(folder, randomUUID());
  const handle = await open(path, 'wx').catch(async (error: unknown) => {
    if (errnoOf(error) !== 'ENOENT') throw error;
    await mkdir(folder, { recursive: false }).catch(ignoreExisting);
    return open(path, 'wx');
  });
  try {
    const sha256 = await writeAll(handle, bytes, pace);
    await handle.sync();
    return { path, sha256 };
  } catch (error) {
    await removeIncoming(path);
    throw error;
  } finally {
    await handle.close();
  }
}

/** Each piece is hashed while it is written, so that no piece holds up the main thread for long. Returns the SHA-256. */
async function writeAll(handle: FileHandle, bytes: Uint8Array, pace: Pace): Promise<Uint8Array> {
  const hash = createHash('sha256');
  for (let at = 0; at < bytes.length; ) {
    const piece = bytes.subarray(at, at + (await pace(Math.min(pieceBytes, bytes.length - at))));
    const writing = writePiece(handle, piece, at);
    hash.update(piece);
    await writing;
    at += piece.length;
  }
  return hash.digest();
}

async function writePiece(handle: FileHandle, piece: Uint8Array, at: number): Promise<void> {
  for (let written = 0; written < piece.length; ) {
    written += (await handle.write(piece, written, piece.length - written, at + written)).bytesWritten;
  }
}

/**
 * The folder is synced even when the name was taken: its owner may have been killed between link and sync, and what a
 * caller has learned to exist must still be there after a power loss.
 */
async function linkObject(store: Store, incoming: string, name: string): Promise<void> {
  const { directory, folders } = store;
  await folders.make(folderOf(name));
  const path = join(directory, name);
  const taken = await link(incoming, path).then(
    () => false,
    async (error: unknown) => {
      if (errnoOf(error) !== 'EEXIST') throw error;
      // NFS may repeat a link whose answer was lost; a second link count shows that the name is ours.
      return (await stat(incoming)).nlink !== 2;
    },
  );
  await syncFolder(join(directory, folderOf(name)));
  if (!taken) return;
  if ((await stat(path)).isDirectory())
    throw new RequestRefused(`${name} in ${directory} is a folder, and cannot be an object`);
  throw new ObjectExists(`${name} in ${directory} exists already`);
}

/** A leftover costs only space and is removed by a later open, so failing to remove it fails nothing. */
async function removeIncoming(path: string): Promise<void> {
  await unlink(path).catch((error: unknown) => {
    if (errnoOf(error) === null) throw error;
  });
}

async function getObject(
  directory: string,
  name: string,
  range: ByteRange | null,
  signal: AbortSignal,
  { pace = atOnce, into: given }: GetOptions = {},
): Promise<Uint8Array> {
  checkObjectName(name);
  signal.throwIfAborted();
  const where: Where = { directory, name, doing: 'reading' };
  await using handle = await named(open(join(directory, name), 'r'), where);
  const info = objectInfo(directory, name, await named(handle.stat(), where));
  const { offset, length } = range ?? { offset: 0, length: info.bytes };
  // Checked before the buffer is allocated: a hostile length must not take the memory first.
  if (offset + length > info.bytes || (range === null && length > wholeObjectBytesMax)) {
    throw new RangeInvalid(
      `${name} in ${directory} has ${info.bytes} bytes, and bytes ${offset} to ${offset + length} were asked for`,
    );
  }
  // Not zeroed first: it is given out only once every byte of it was read.
  const into = given ?? new Uint8Array(Buffer.allocUnsafeSlow(length).buffer);
  for (let done = 0, granted = 0; done < length; ) {
    if (granted === done) granted += await pace(length - done);
    signal.throwIfAborted();
    const { bytesRead } = await named(handle.read(into, done, granted - done, offset + done), where);
    if (bytesRead === 0) throw new RangeInvalid(`${name} in ${directory} became shorter while it was read`);
    done += bytesRead;
  }
  return into;
}

async function headObject(directory: string, name: string, signal: AbortSignal): Promise<ObjectInfo> {
  checkObjectName(name);
  signal.throwIfAborted();
  return objectInfo(
    directory,
    name,
    await named(stat(join(directory, name)), { directory, name, doing: 'looking at it' }),
  );
}

function objectInfo(directory: string, name: string, found: Stats): ObjectInfo {
  if (!found.isFile()) throw new ObjectNotFound(`${name} in ${directory} is no object`);
  return { name, bytes: found.size, modified: found.mtime, sha256: null };
}

async function deleteObjects(directory: string, names: readonly string[], signal: AbortSignal): Promise<void> {
  names.forEach(checkObjectName);
  const touched = new Set<string>();
  for (const name of names) {
    signal.throwIfAborted();
    if (await deleteOne(directory, name)) touched.add(folderOf(name));
  }
  for (const folder of touched) {
    await named(syncFolder(join(directory, folder)), { directory, name: folder, doing: 'making deletions durable' });
  }
}

async function deleteOne(directory: string, name: string): Promise<boolean> {
  const where: Where = { directory, name, doing: 'deleting' };
  try {
    await named(unlink(join(directory, name)), where);
    return true;
  } catch (error) {
    if (error instanceof ObjectNotFound) return false;
    throw error;
  }
}

/** What the file system stamps on a new file: on a network share that is the server's clock, as objects' times are. */
async function fileSystemTime(directory: string, signal: AbortSignal): Promise<Date> {
  signal.throwIfAborted();
  const where: Where = { directory, name: '', doing: 'reading the clock' };
  const { path } = await named(writeIncoming(directory, new Uint8Array(1)), where);
  try {
    return (await named(stat(path), where)).mtime;
  } finally {
    await removeIncoming(path);
  }
}

/** Removes what killed processes left behind. A put that is still alive after an hour finds out and is tried again. */
async function removeLeftovers(directory: string): Promise<void> {
  const folder = join(directory, incomingFolder);
  const leftovers = await readdir(folder).catch(ignoreUnreachable);
  for (const leftover of (leftovers ?? []).slice(0, leftoversPerOpenMax)) {
    const path = join(folder, leftover);
    // Another process may remove it first.
    const found = await stat(path).catch(ignoreUnreachable);
    if (found !== null && Date.now() - found.mtimeMs > leftoverAgeMs) await removeIncoming(path);
  }
}

function ignoreUnreachable(error: unknown): null {
  if (errnoOf(error) === null) throw error;
  return null;
}

function ignoreExisting(error: unknown): void {
  if (errnoOf(error) !== 'EEXIST') throw error;
}

async function named<T>(work: Promise<T>, where: Where): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' && !(await isDirectory(where.directory)))
      throw directoryMissing(where.directory, error);
    throw filesystemError(error, where);
  }
}

/** While putting, a missing file means that a folder or the incoming file was removed under us: worth another try. */
async function putNamed<T>(store: Store, work: Promise<T>, where: Where): Promise<T> {
  try {
    return await named(work, where);
  } catch (error) {
    if (!(error instanceof ObjectNotFound)) throw error;
    store.folders.forget();
    throw new StoreUnavailable(`${where.name} in ${where.directory}: its folder was removed while it was put`, {
      cause: error,
    });
  }
}

async function isDirectory(path: string): Promise<boolean> {
  const found = await stat(path).catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return null;
    throw new AccessDenied(`${path}: it cannot be looked at; check its permissions and that it is mounted`, {
      cause: error,
    });
  });
  return found?.isDirectory() ?? false;
}
