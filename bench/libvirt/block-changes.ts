import { open } from 'node:fs/promises';

/** Which blocks of a disk get the content of which others, so that what changed compresses as the disk does. */

const blockBytes = 64 * 1024;
/** A prime, so that what is picked by it falls in no step with the file system. */
const stride = 7_919;
const sourcesMax = 256;

export interface BlockChange {
  readonly from: number;
  readonly to: number;
}

/** Scattered over the whole disk; every source holds data. */
export async function changesOf(image: string, share: number): Promise<readonly BlockChange[]> {
  await using file = await open(image);
  const blocks = Math.floor((await file.stat()).size / blockBytes);
  const sources: number[] = [];
  const bytes = Buffer.alloc(blockBytes);
  for (let i = 0; sources.length < sourcesMax && i < blocks; i++) {
    const block = (i * stride) % blocks;
    await file.read(bytes, 0, blockBytes, block * blockBytes);
    if (bytes.some((byte) => byte !== 0)) sources.push(block);
  }
  const count = Math.max(1, Math.floor(blocks * share));
  return Array.from({ length: count }, (_, i) => ({
    from: sources[i % sources.length] ?? 0,
    to: Math.floor((i * blocks) / count),
  }));
}
