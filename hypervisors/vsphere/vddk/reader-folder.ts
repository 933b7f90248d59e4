import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** What one nbdkit has while it runs. An agent that was killed leaves its own behind: whoever opens the next disk removes it. */
export async function makeReaderFolder(): Promise<string> {
  const names = await readdir(tmpdir()).catch(() => []);
  for (const name of names) {
    const pid = Number(/^failkit-nbdkit-(\d+)-\w{6}$/.exec(name)?.[1] ?? Number.NaN);
    // That of another user can't be removed, and is not ours to remove.
    if (Number.isInteger(pid) && !isRunning(pid))
      await rm(join(tmpdir(), name), { recursive: true, force: true }).catch(() => undefined);
  }
  return await mkdtemp(join(tmpdir(), `failkit-nbdkit-${process.pid}-`));
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return !(error instanceof Error && 'code' in error && error.code === 'ESRCH');
  }
}
