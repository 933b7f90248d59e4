import { createReadStream } from 'node:fs';

const chunkBytes = 8 * 2 ** 20;

/** How many of the needles the file holds, wherever they are. */
export async function searchFile(path: string, needles: readonly Buffer[], signal: AbortSignal): Promise<number> {
  const longest = Math.max(...needles.map(({ length }) => length));
  const found = new Set<Buffer>();
  let before = new Uint8Array();
  for await (const chunk of createReadStream(path, { highWaterMark: chunkBytes, signal })) {
    const bytes = Buffer.concat([before, chunk]);
    for (const needle of needles) if (bytes.includes(needle)) found.add(needle);
    // A needle that the end of a chunk cuts is found with the next one.
    before = Uint8Array.from(bytes.subarray(-(longest - 1)));
  }
  return found.size;
}
