/** A chain that Windows wrote, with the hash that others published of what it holds. */
import { expect, it } from 'vitest';
import { capacityOf } from '../../../hypervisors/vhdx/chain-reader.ts';
import { contentOf, openIn } from './read-all.ts';
import { published, sha256, windowsFiles } from './windows-files.ts';

it('a differencing chain of Windows 10 holds what docker-explorer published, and stays as it was', async () => {
  const files = windowsFiles();
  await using chain = await openIn(files, 'diff.vhdx');
  expect([chain.layers.length, capacityOf(chain)]).toEqual([2, 4 * 2 ** 20]);
  expect(sha256(await contentOf(chain))).toBe(published.merged);
  for (const name of ['base.vhdx', 'diff.vhdx'] as const) expect(sha256(files[name])).toBe(published[name]);
});
