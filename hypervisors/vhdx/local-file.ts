import { type BigIntStats, constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { SourceNotFound, SourceUnreadable } from '../errors.ts';
import type { FilePart, RandomAccessFile } from './random-access-file.ts';

/** A file of this host. Null where there is none. Throws SourceNotFound where it can't be opened, or is no plain file. */
export async function openLocalFile(path: string, signal: AbortSignal): Promise<RandomAccessFile | null> {
  signal.throwIfAborted();
  await using opening = new AsyncDisposableStack();
  const handle = await openQuietly(path).catch((cause: unknown) => {
    if (isMissing(cause)) return null;
    throw new SourceNotFound(`${path} can't be opened (${codeOf(cause)}): check its permissions`, { cause });
  });
  if (handle === null) return null;
  opening.use(handle);
  const stats = await handle.stat({ bigint: true });
  if (!stats.isFile()) throw new SourceNotFound(`${path} is not a plain file: give the path of an image file`);
  opening.move();
  return localFile(path, handle, stats);
}

function localFile(path: string, handle: FileHandle, stats: BigIntStats): RandomAccessFile {
  return {
    path,
    sizeBytes: Number(stats.size),
    identity: `file ${stats.dev}/${stats.ino}`,
    async read(parts, signal) {
      for (const part of parts) await readPart(path, handle, part, signal);
    },
    directFd: () => handle.fd,
    [Symbol.asyncDispose]: () => handle.close(),
  };
}

async function readPart(path: string, handle: FileHandle, { offset, into }: FilePart, signal: AbortSignal) {
  for (let done = 0; done < into.length; ) {
    signal.throwIfAborted();
    const { bytesRead } = await handle.read(into, done, into.length - done, offset + done).catch((cause: unknown) => {
      throw new SourceUnreadable(
        `${path} at byte ${offset + done}: the read failed (${codeOf(cause)}): check the storage and the system log`,
        { cause },
      );
    });
    if (bytesRead === 0)
      throw new SourceUnreadable(`${path} ends at byte ${offset + done}: it was truncated while it was read`);
    done += bytesRead;
  }
}

/** Without moving the access time, which only the owner and root may ask for. Without O_NONBLOCK, a named pipe would hang. */
async function openQuietly(path: string): Promise<FileHandle> {
  const flags = constants.O_RDONLY | constants.O_NONBLOCK;
  try {
    return await open(path, flags | (constants.O_NOATIME ?? 0));
  } catch (cause) {
    if (codeOf(cause) !== 'EPERM') throw cause;
    return open(path, flags);
  }
}

function isMissing(cause: unknown): boolean {
  return ['ENOENT', 'ENOTDIR'].includes(codeOf(cause));
}

function codeOf(cause: unknown): string {
  return cause instanceof Error && 'code' in cause ? String(cause.code) : 'unknown error';
}
