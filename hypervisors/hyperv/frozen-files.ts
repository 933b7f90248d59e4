import { createHash } from 'node:crypto';
import type { ImageChain } from '../vhdx/image-chain.ts';
import type { ImageLayer } from '../vhdx/image-layer.ts';
import { readBytes } from '../vhdx/random-access-file.ts';
import { headerBytes, headerOffsets } from '../vhdx/vhdx-header.ts';

/** Whoever writes to a VHDX writes its headers first: while they stay as they are, so does the file. */

export type FileMarks = ReadonlyMap<string, string>;

export async function marksOf(chain: ImageChain, signal: AbortSignal): Promise<FileMarks> {
  const marks = new Map<string, string>();
  for (const { file, diskIdentity } of chain.layers)
    if (diskIdentity !== null) marks.set(file.path, await markOf(file, signal));
  return marks;
}

async function markOf(file: ImageLayer['file'], signal: AbortSignal): Promise<string> {
  const hash = createHash('sha256');
  for (const offset of headerOffsets) hash.update(await readBytes(file, offset, headerBytes, signal));
  return hash.digest('hex');
}
