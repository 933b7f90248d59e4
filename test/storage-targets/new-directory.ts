import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const made: string[] = [];

/** Called after each file, by new-directory-setup.ts: this module is loaded once for all the files of a process. */
export async function removeNewDirectories(): Promise<void> {
  for (const directory of made.splice(0)) await rm(directory, { recursive: true, force: true });
}

/** An empty directory that is removed after the last test of the file. */
export async function newDirectory(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'failkit-target-'));
  made.push(directory);
  return directory;
}
