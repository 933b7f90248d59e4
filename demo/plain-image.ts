import { closeSync, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { formatBytes } from '../agent/quantities.ts';
import {
  type Changed,
  type DiskImage,
  type Installed,
  imageBytes,
  type KnownContent,
  removeEvery,
  rewriteEvery,
} from './disk-image.ts';
import { filesBelow, packages } from './real-files.ts';

/** Where mkfs.ext4 is missing: the same files one after another, each at a multiple of 4 KiB, and free space behind them. */

const clusterBytes = 4096;
/** Room for the release. */
const filledBytesMax = 0.7 * imageBytes;

interface Laid {
  readonly at: number;
  readonly bytes: number;
}

export function makePlainImage(path: string, known: KnownContent): DiskImage {
  const laid: Laid[] = [];
  let end = 0;
  const put = (bytes: Uint8Array) => {
    write(path, end, bytes);
    laid.push({ at: end, bytes: bytes.length });
    end = Math.ceil((end + bytes.length) / clusterBytes) * clusterBytes;
  };
  const descriptor = openSync(path, 'wx');
  ftruncateSync(descriptor, imageBytes);
  closeSync(descriptor);
  put(Buffer.from(`${known.text}\n`.repeat(1000)));
  put(known.noise);
  const reserved = laid.length;
  for (const file of filesBelow(packages))
    if (end + file.bytes < filledBytesMax) put(readFileSync(join(packages, file.path)));
  const free = formatBytes(imageBytes - end);
  return {
    path,
    description: `${formatBytes(imageBytes)}: ${laid.length.toLocaleString('en')} files one after another, ${free} free`,
    changeHereAndThere: async () => changeHereAndThere(path, laid.slice(reserved)),
    installRelease: async (): Promise<Installed> => {
      const program = readFileSync(process.execPath).subarray(0, imageBytes - end);
      put(program);
      return { bytes: program.length };
    },
    checkImage: async () => null,
  };
}

function changeHereAndThere(path: string, laid: readonly Laid[]): Changed {
  const chosen = laid.filter((_, i) => i % rewriteEvery === 0);
  const removed = chosen.filter((_, i) => i % removeEvery === 0);
  const rewritten = chosen.filter((_, i) => i % removeEvery !== 0);
  for (const { at, bytes } of removed) write(path, at, new Uint8Array(bytes));
  for (const [number, { at, bytes }] of rewritten.entries())
    write(path, at, Buffer.from(`edited copy ${number}`).subarray(0, bytes));
  return { rewritten: rewritten.length, removed: removed.length };
}

function write(path: string, at: number, bytes: Uint8Array): void {
  const descriptor = openSync(path, 'r+');
  try {
    for (let done = 0; done < bytes.length; )
      done += writeSync(descriptor, bytes, done, bytes.length - done, at + done);
  } finally {
    closeSync(descriptor);
  }
}
