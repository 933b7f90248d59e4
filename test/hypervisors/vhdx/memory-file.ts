import type { RandomAccessFile } from '../../../hypervisors/vhdx/random-access-file.ts';
import type { MadeFile } from './vhdx-maker.ts';

/** A file in memory: one that no system call stands behind, as one that is reached by a network. */
export function memoryFile(path: string, bytes: Uint8Array): RandomAccessFile {
  return {
    path,
    sizeBytes: bytes.length,
    identity: path,
    async read(parts, signal) {
      signal.throwIfAborted();
      for (const { offset, into } of parts) {
        const found = bytes.subarray(offset, offset + into.length);
        if (found.length !== into.length) throw new Error(`a read at ${offset} of ${path} leaves the file`);
        into.set(found);
      }
    },
    directFd: () => null,
    [Symbol.asyncDispose]: async () => undefined,
  };
}

export function bytesOf({ sizeBytes, parts }: MadeFile): Buffer {
  const bytes = Buffer.alloc(sizeBytes);
  for (const part of parts) bytes.set(part.bytes, part.at);
  return bytes;
}

/** The same without its bytes in one piece: most of such a file is nothing. */
export function sparseFile(path: string, { sizeBytes, parts }: MadeFile): RandomAccessFile {
  return {
    ...{ path, sizeBytes, identity: path },
    async read(wanted, signal) {
      signal.throwIfAborted();
      for (const { offset, into } of wanted) {
        if (offset + into.length > sizeBytes) throw new Error(`a read at ${offset} of ${path} leaves the file`);
        into.fill(0);
        for (const { at, bytes } of parts) {
          const [from, to] = [Math.max(at, offset), Math.min(at + bytes.length, offset + into.length)];
          if (from < to) into.set(bytes.subarray(from - at, to - at), from - offset);
        }
      }
    },
    directFd: () => null,
    [Symbol.asyncDispose]: async () => undefined,
  };
}
