import { posix } from 'node:path';
import pLimit from 'p-limit';
import type { SFTPWrapper } from 'ssh2';
import { SourceNotFound, SourceUnreadable } from '../errors.ts';
import type { FilePart, RandomAccessFile } from '../vhdx/random-access-file.ts';
import { HypervUnreachable } from './hyperv-errors.ts';
import { settled } from './settled.ts';

/** A file of the host by SFTP: many small reads on their way at one time, for larger ones break on Windows. */

/** https://github.com/PowerShell/Win32-OpenSSH/issues/1395 */
const readBytesMax = 32 * 1024;
const readsInFlightMax = 48;
const noSuchFile = 2;
const permissionDenied = 3;

/** SFTP of a host, for as long as the connection is there. */
export interface SftpHost {
  readonly sftp: SFTPWrapper;
  readonly where: string;
  /** Aborted when the connection ends. */
  readonly gone: AbortSignal;
}

/** Null: there is no such file. */
export async function openSftpFile(
  host: SftpHost,
  path: string,
  signal: AbortSignal,
): Promise<RandomAccessFile | null> {
  signal.throwIfAborted();
  const { sftp, where, gone } = host;
  const at = sftpPath(path);
  const handle = await settled<Buffer>((done) => sftp.open(at, 'r', done), gone).catch((cause: unknown) => {
    if (statusOf(cause) === noSuchFile) return null;
    if (statusOf(cause) === null) throw new HypervUnreachable(`${where}: the connection broke at ${path}`, { cause });
    const why = statusOf(cause) === permissionDenied ? ': the account may not read it' : '';
    throw new SourceNotFound(`${where}: ${path} can't be opened${why} (SFTP status ${statusOf(cause)})`, { cause });
  });
  if (handle === null) return null;
  const close = () => settled<void>((done) => sftp.close(handle, done), gone);
  try {
    const { size } = await settled<{ size: number }>((done) => sftp.fstat(handle, done), gone);
    return sftpFile(host, path, handle, size, close);
  } catch (cause) {
    await close().catch(() => undefined);
    throw new SourceNotFound(`${where}: ${path} does not say how large it is`, { cause });
  }
}

function sftpFile(
  host: SftpHost,
  path: string,
  handle: Buffer,
  sizeBytes: number,
  close: () => Promise<void>,
): RandomAccessFile {
  const { where } = host;
  const limit = pLimit(readsInFlightMax);
  const readSome = async (offset: number, into: Buffer, signal: AbortSignal): Promise<void> => {
    for (let done = 0; done < into.length; ) {
      signal.throwIfAborted();
      const count = await readOnce(host, handle, into, done, offset + done).catch((cause: unknown) => {
        throw new SourceUnreadable(`${where}: ${path} at byte ${offset + done}: the read failed`, { cause });
      });
      if (count === 0) throw new SourceUnreadable(`${where}: ${path} ends at byte ${offset + done}: it was truncated`);
      done += count;
    }
  };
  return {
    ...{ path, sizeBytes, identity: `${where} ${path.toLowerCase()}` },
    async read(parts, signal) {
      const reads = parts.flatMap(pieces).map(({ offset, into }) => {
        const bytes = Buffer.alloc(into.length);
        return limit(async () => {
          await readSome(offset, bytes, signal);
          into.set(bytes);
        });
      });
      // Nobody writes into the parts any more once this settles.
      for (const read of await Promise.allSettled(reads)) if (read.status === 'rejected') throw read.reason;
    },
    directFd: () => null,
    async [Symbol.asyncDispose]() {
      // Where the connection is gone, so is the handle.
      await close().catch(() => undefined);
    },
  };
}

function pieces({ offset, into }: FilePart): readonly FilePart[] {
  const count = Math.ceil(into.length / readBytesMax);
  return Array.from({ length: count }, (_, i) => ({
    offset: offset + i * readBytesMax,
    into: into.subarray(i * readBytesMax, (i + 1) * readBytesMax),
  }));
}

function readOnce(
  { sftp, gone }: SftpHost,
  handle: Buffer,
  into: Buffer,
  at: number,
  position: number,
): Promise<number> {
  return settled<number>(
    (done) => sftp.read(handle, into, at, into.length - at, position, (error, count) => done(error, count)),
    gone,
  );
}

/** `C:\folder\file` is `/C:/folder/file` there. */
function sftpPath(path: string): string {
  const slashes = path.replaceAll('\\', '/');
  return /^[A-Za-z]:\//.test(slashes) ? `/${slashes}` : posix.normalize(slashes);
}

function statusOf(error: unknown): number | null {
  return error instanceof Error && 'code' in error && typeof error.code === 'number' ? error.code : null;
}
