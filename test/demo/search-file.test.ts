import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { searchFile } from '../../demo/search-file.ts';

const mebibyte = 2 ** 20;
const { signal } = new AbortController();
const needle = Buffer.from('a known line of the ledger');

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'failkit-search-'));
});
afterAll(async () => {
  await rm(folder, { recursive: true });
});

it.each([0, 1000, 8 * mebibyte - 1, 8 * mebibyte - 25, 16 * mebibyte - 13, 17 * mebibyte - needle.length])(
  'finds a text at byte %i, also where a chunk of reading ends inside it',
  async (at) => {
    expect(await searchFile(await fileWith(at), [needle, Buffer.from('nowhere')], signal)).toBe(1);
  },
);

it('finds nothing where there is nothing', async () => {
  expect(await searchFile(await fileWith(null), [needle], signal)).toBe(0);
});

async function fileWith(at: number | null): Promise<string> {
  const bytes = Buffer.alloc(17 * mebibyte, '.');
  if (at !== null) needle.copy(bytes, at);
  const path = join(folder, `at-${at}`);
  await writeFile(path, bytes);
  return path;
}
