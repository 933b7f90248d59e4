import { createHash } from 'node:crypto';
import { SourceNotFound } from '../errors.ts';
import type { ImageChain } from '../vhdx/image-chain.ts';
import type { ImageLayer } from '../vhdx/image-layer.ts';
import { type OpenFile, readBytes } from '../vhdx/random-access-file.ts';
import { headerBytes, headerOffsets } from '../vhdx/vhdx-header.ts';
import { pause } from '../vsphere/pause.ts';
import { pollPauseMs } from './hyperv-machine.ts';
import type { HypervSite } from './hyperv-site.ts';

/** Files below a checkpoint. Whoever writes to a VHDX writes its headers first: while they stay as they are, so does the file. */

/** A scanner has a file for some seconds. */
const attemptsMax = 8;
const longer = 4;
/** How a local file says that somebody else has it, and SFTP, which has no word for it. */
const heldCodes: readonly unknown[] = ['EBUSY', 4];

/** Opens as the site does, and again where somebody else has the file. */
export function openingHeld({ openFile, pace }: Pick<HypervSite, 'openFile' | 'pace'>): OpenFile {
  return async (path, signal) => {
    for (let attempt = 1; ; attempt++) {
      try {
        return await openFile(path, signal);
      } catch (error) {
        if (attempt === attemptsMax || !isHeld(error)) throw error;
        await pause(pollPauseMs(pace, attempt + longer), signal);
      }
    }
  };
}

function isHeld(error: unknown): boolean {
  if (!(error instanceof SourceNotFound)) return false;
  const { cause } = error;
  return cause instanceof Error && 'code' in cause && heldCodes.includes(cause.code);
}

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
