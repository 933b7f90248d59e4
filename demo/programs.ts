import { execFile } from 'node:child_process';
import { delimiter } from 'node:path';
import { promisify } from 'node:util';

/** Programs of the system that the demo uses. Nothing needs root. */

const run = promisify(execFile);
/** Where Debian and Homebrew keep mkfs.ext4; ordinary users often lack these in their PATH. */
const systemFolders = ['/usr/sbin', '/sbin', '/opt/homebrew/opt/e2fsprogs/sbin', '/usr/local/opt/e2fsprogs/sbin'];
const outputBytesMax = 64 * 2 ** 20;

export function environment(): NodeJS.ProcessEnv {
  return { ...process.env, PATH: [process.env.PATH, ...systemFolders].join(delimiter), LC_ALL: 'C' };
}

export interface Finished {
  readonly stdout: string;
  readonly stderr: string;
}

/** Rejects unless the program ends with 0. */
export async function runProgram(
  file: string,
  args: readonly string[],
  options: { readonly cwd: string; readonly signal: AbortSignal },
): Promise<Finished> {
  return await run(file, [...args], { ...options, env: environment(), maxBuffer: outputBytesMax });
}

/** E2fsprogs makes and changes a file system inside a plain file, without mounting it. */
export async function hasExt4Tools(cwd: string, signal: AbortSignal): Promise<boolean> {
  try {
    for (const tool of ['mkfs.ext4', 'debugfs', 'e2fsck']) await runProgram(tool, ['-V'], { cwd, signal });
    return true;
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return false;
    throw error;
  }
}
