import { mkdir, open, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { runNbdTool } from '../../test/peers/nbd.ts';

/** Blocks all over a qcow2 image get other content, as a day of a database does it. */

const blockBytes = 64 * 1024;
const contentsMax = 64;
/** A prime, so that what is picked by it falls in no step with the file system. */
const stride = 7_919;
const commandsAtOnceMax = 1_000;

/**
 * Writes `share` of the blocks with what stands elsewhere on the disk, so that they compress as it does. Returns how many. Another folder
 * for the contents makes other ones.
 */
export async function changeBlocks(qcow2: string, raw: string, share: number, folder: string): Promise<number> {
  const contents = await contentsOf(raw, folder);
  await using file = await open(raw);
  const blocks = Math.floor((await file.stat()).size / blockBytes);
  const count = Math.max(1, Math.floor(blocks * share));
  const commands = Array.from({ length: count }, (_, i) => {
    const block = Math.floor((i * blocks) / count + ((i * stride) % Math.max(1, Math.floor(blocks / count))));
    return `write -q -s ${contents[i % contents.length]} ${block * blockBytes} ${blockBytes}`;
  });
  for (let i = 0; i < commands.length; i += commandsAtOnceMax) {
    const some = commands.slice(i, i + commandsAtOnceMax);
    await runNbdTool('qemu-io', ['-f', 'qcow2', ...some.flatMap((command) => ['-c', command]), qcow2]);
  }
  return count;
}

/** Files with a block each; in every one a mark of its own, so that no block is written with what it holds. */
async function contentsOf(raw: string, folder: string): Promise<readonly string[]> {
  await mkdir(folder, { recursive: true });
  await using file = await open(raw);
  const blocks = Math.floor((await file.stat()).size / blockBytes);
  const paths: string[] = [];
  for (let i = 0; paths.length < contentsMax && i < blocks; i++) {
    const bytes = Buffer.alloc(blockBytes);
    await file.read(bytes, 0, blockBytes, ((i * stride) % blocks) * blockBytes);
    if (bytes.every((byte) => byte === 0)) continue;
    bytes.write(`changed ${i} ${folder}`);
    paths.push(join(folder, `content-${i}`));
    await writeFile(paths.at(-1) ?? '', bytes);
  }
  return paths;
}
