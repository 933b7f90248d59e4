import { once } from 'node:events';
import { lstat, mkdtemp, readdir, rm } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { DrillHostUnfit } from './drill-errors.ts';

/** Where a drill keeps its overlays, its restored disks and its sockets; what drills that were killed left there is removed first. */

const prefix = 'failkit-drill-';
/** Answers as long as the drill that made the folder lives. */
const lifeSign = 'alive';
/** The name of a unix socket has 107 at most; what is added here is a part of that. */
const parentBytesMax = 64;
/** A drill that has just begun has its folder, and not yet its sign of life. */
const youngMs = 60_000;

export interface WorkFolder {
  readonly path: string;
  remove(): Promise<void>;
}

/** Throws DrillHostUnfit. */
export async function openWorkFolder(parent: string): Promise<WorkFolder> {
  if (Buffer.byteLength(parent) > parentBytesMax)
    throw new DrillHostUnfit(`${parent}: too long for sockets in it: name another folder with --work`);
  try {
    await removeLeftovers(parent);
    const path = await mkdtemp(join(parent, prefix));
    const alive = createServer((client) => client.destroy()).unref();
    alive.listen(join(path, lifeSign));
    await once(alive, 'listening');
    return {
      path,
      remove: async () => {
        await rm(path, { recursive: true, force: true });
        alive.close();
      },
    };
  } catch (cause) {
    const code = codeOf(cause);
    throw new DrillHostUnfit(`${parent}: no work folder can be made there (${code}): name another with --work`, {
      cause,
    });
  }
}

/** Disks of customers in plain: nobody else would remove them. */
async function removeLeftovers(parent: string): Promise<void> {
  for (const name of await readdir(parent)) {
    const path = join(parent, name);
    if (name.startsWith(prefix) && (await isLeftover(path))) await rm(path, { recursive: true, force: true });
  }
}

async function isLeftover(path: string): Promise<boolean> {
  const found = await lstat(path).catch(() => null);
  if (found === null || !found.isDirectory() || found.uid !== process.getuid?.()) return false;
  const probe = connect({ path: join(path, lifeSign) });
  const silence = await once(probe, 'connect').then(() => null, codeOf);
  probe.destroy();
  return silence === 'ECONNREFUSED' || (silence === 'ENOENT' && Date.now() - found.mtimeMs > youngMs);
}

function codeOf(cause: unknown): string {
  return cause instanceof Error && 'code' in cause ? String(cause.code) : String(cause);
}
