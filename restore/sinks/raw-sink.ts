import { constants } from 'node:fs';
import { type FileHandle, mkdir, open, rename, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { RestoreSink } from './sink.ts';

/** Restoring into a raw file (sparse) or onto a block device. */

/** The output exists, and nobody said that it may be overwritten. */
export class OutputExists extends Error {
  readonly code = 'OUTPUT_EXISTS';
  override readonly name = 'OutputExists';
}
/** The output can't be written: full disk, missing folder, no permission, a device too small. */
export class OutputUnusable extends Error {
  readonly code = 'OUTPUT_UNUSABLE';
  override readonly name = 'OutputUnusable';
}

/** Makes the folder for a machine's disks, unless it is there. Throws OutputUnusable. */
export async function makeOutputFolder(path: string): Promise<void> {
  try {
    await mkdir(path, { recursive: true });
  } catch (error) {
    if (isErrno(error, 'EEXIST') || isErrno(error, 'ENOTDIR'))
      throw new OutputUnusable(`${path} can't be written: it is, or lies in, something that is not a folder`, {
        cause: error,
      });
    throw outputError(error, path);
  }
}

export interface FileSinkOptions {
  readonly path: string;
  readonly capacityBytes: number;
  /** Overwrite what is there; needed for every block device. */
  readonly force: boolean;
  /** Names the content, so that a later try knows its own partial file, and no other's: `MACHINE-POINT-DISK`. */
  readonly contentName: string;
}

export async function openRawSink(options: FileSinkOptions): Promise<RestoreSink> {
  const found = await findOutput(options);
  try {
    return found === 'device' ? await openDevice(options) : await openPartialFile(options);
  } catch (error) {
    throw outputError(error, options.path);
  }
}

/** Throws OutputExists where something is there that may not be overwritten. */
export async function findOutput({ path, force }: FileSinkOptions): Promise<'nothing' | 'file' | 'device'> {
  const found = await describeOutput(path);
  if (found === 'nothing' || force) return found;
  throw new OutputExists(`${path} exists: choose another name, or say --force to overwrite it`);
}

async function describeOutput(path: string): Promise<'nothing' | 'file' | 'device'> {
  try {
    const found = await stat(path);
    if (found.isBlockDevice()) return 'device';
    if (found.isFile()) return 'file';
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return 'nothing';
    throw outputError(error, path);
  }
  throw new OutputUnusable(`${path} is neither a file nor a block device`);
}

async function openDevice(options: FileSinkOptions): Promise<RestoreSink> {
  await using opening = new AsyncDisposableStack();
  const file = opening.use(await open(options.path, constants.O_RDWR | constants.O_EXCL));
  const probe = Buffer.alloc(1);
  const { bytesRead } = await file.read(probe, 0, 1, options.capacityBytes - 1);
  if (bytesRead !== 1)
    throw new OutputUnusable(`${options.path} is smaller than the disk (${options.capacityBytes} bytes)`);
  opening.move();
  return rawSink(file, options, { path: options.path, isNew: false, isDevice: true });
}

/** Everything goes to a partial file next to the output, which takes the output's name only when it is complete. */
async function openPartialFile(options: FileSinkOptions): Promise<RestoreSink> {
  const path = partialPathOf(options);
  await using opening = new AsyncDisposableStack();
  const file = opening.use(await open(path, constants.O_RDWR | constants.O_CREAT, 0o600));
  const { size } = await file.stat();
  await file.truncate(options.capacityBytes);
  opening.move();
  return rawSink(file, options, { path, isNew: size === 0, isDevice: false });
}

function rawSink(
  file: FileHandle,
  options: FileSinkOptions,
  at: { path: string; isNew: boolean; isDevice: boolean },
): RestoreSink {
  const guarded = async <T>(work: () => Promise<T>): Promise<T> => {
    try {
      return await work();
    } catch (error) {
      throw outputError(error, at.path);
    }
  };
  return {
    description: options.path,
    startsZeroed: !at.isDevice,
    mayHoldContent: !at.isNew,
    write: (offset, bytes, signal) => guarded(() => writeFully(file, offset, bytes, signal)),
    read: (offset, into, signal) => guarded(() => readFully(file, offset, into, at.path, signal)),
    direct: {
      place: async (offset, length) => [{ at: offset, length, fd: file.fd, offset }],
      refusal: (error) => outputError(error, at.path),
      noteWritten: () => undefined,
    },
    complete: () =>
      guarded(async () => {
        await file.sync();
        if (at.isDevice) return;
        await takeName(at.path, options.path);
      }),
    [Symbol.asyncDispose]: () => file.close(),
  };
}

export function partialPathOf({ path, contentName }: FileSinkOptions): string {
  return `${path}.${contentName}.partial`;
}

/** A synced file takes its final name, durably. */
export async function takeName(partial: string, path: string): Promise<void> {
  await rename(partial, path);
  await syncFolder(dirname(path));
}

export async function writeFully(
  file: FileHandle,
  offset: number,
  bytes: Uint8Array,
  signal: AbortSignal,
): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    signal.throwIfAborted();
    done += (await file.write(bytes, done, bytes.length - done, offset + done)).bytesWritten;
  }
}

export async function readFully(
  file: FileHandle,
  offset: number,
  into: Uint8Array,
  path: string,
  signal: AbortSignal,
): Promise<void> {
  for (let done = 0; done < into.length; ) {
    signal.throwIfAborted();
    const { bytesRead } = await file.read(into, done, into.length - done, offset + done);
    if (bytesRead === 0) throw new OutputUnusable(`${path} ends at ${offset + done}, before the disk does`);
    done += bytesRead;
  }
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

/** What the system says against an output, as OutputUnusable; anything else as it is. */
export function outputError(error: unknown, path: string): unknown {
  if (!(error instanceof Error && 'syscall' in error && 'code' in error)) return error;
  const why =
    isErrno(error, 'ENOSPC') || isErrno(error, 'EDQUOT')
      ? 'no space left: free some, and run the same restore again to go on'
      : error.message;
  return new OutputUnusable(`${path} can't be written: ${why}`, { cause: error });
}

function isErrno(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}
