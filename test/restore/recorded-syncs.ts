import { existsSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { vi } from 'vitest';

/** For each fsync while `work` runs, whether `path` existed then. `present`: a file that does. */
export async function recordSyncs(
  path: string,
  present: string,
  work: () => Promise<unknown>,
): Promise<readonly boolean[]> {
  const handle = await open(present, 'r');
  const prototype: FileHandle = Object.getPrototypeOf(handle);
  await handle.close();
  const { sync } = prototype;
  const named: boolean[] = [];
  using _ = vi.spyOn(prototype, 'sync').mockImplementation(async function (this: FileHandle) {
    named.push(existsSync(path));
    await Reflect.apply(sync, this, []);
  });
  await work();
  return named;
}
