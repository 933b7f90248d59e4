import { capacityOf, diskExtents, readDisk } from '../../../hypervisors/vhdx/chain-reader.ts';
import { type ImageChain, openChain } from '../../../hypervisors/vhdx/image-chain.ts';
import type { OpenFile, RandomAccessFile } from '../../../hypervisors/vhdx/random-access-file.ts';
import { memoryFile } from './memory-file.ts';

const never = new AbortController().signal;

function filesOf(files: Readonly<Record<string, Uint8Array>>): OpenFile {
  return async (path): Promise<RandomAccessFile | null> => {
    const bytes = files[path];
    return bytes === undefined ? null : memoryFile(path, bytes);
  };
}

export async function openIn(files: Readonly<Record<string, Uint8Array>>, name: string): Promise<ImageChain> {
  const chain = await openChain(name, { openFile: filesOf(files), onWindows: false }, never);
  if (chain === null) throw new Error(`there is no ${name}`);
  return chain;
}

/** The whole disk, by its extents: what is said to read as zero is not read. */
export async function contentOf(chain: ImageChain): Promise<Buffer> {
  const content = Buffer.alloc(capacityOf(chain));
  let end = 0;
  for await (const { offset, length, zero } of diskExtents(chain, never)) {
    if (offset !== end) throw new Error(`an extent begins at ${offset}, the one before ended at ${end}`);
    end = offset + length;
    if (!zero) await readDisk(chain, offset, content.subarray(offset, end), never);
  }
  if (end !== content.length) throw new Error(`the extents end at ${end} of ${content.length}`);
  return content;
}
