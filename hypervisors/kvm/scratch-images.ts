import { chmod, chown, mkdir, readdir, rm, stat, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { SourceUnreadable } from '../errors.ts';
import { runQemuImg } from '../nbd/qemu-nbd.ts';
import { ScratchFull } from './kvm-errors.ts';

/** Where a run keeps what the guest overwrites meanwhile: sparse images that live as long as the snapshot does. */

const watchPauseMs = 500;

export interface ScratchFolder {
  readonly folder: string;
  /** Files in it that are ours begin with this. */
  readonly prefix: string;
  readonly freeBytesMin: number;
}

/** An empty image that whoever owns `ownerOf`, a file of QEMU's, may write. */
export async function makeScratchImage(
  scratch: ScratchFolder,
  name: string,
  capacityBytes: number,
  ownerOf: string,
  signal: AbortSignal,
): Promise<string> {
  const path = scratchImage(scratch, name);
  await runQemuImg(['create', '-q', '-f', 'qcow2', path, String(capacityBytes)], signal);
  // It holds what the guest wrote: for QEMU's eyes only.
  await chmod(path, 0o600);
  await giveToQemu(path, ownerOf);
  return path;
}

export function scratchImage({ folder, prefix }: ScratchFolder, name: string): string {
  return join(folder, `${prefix}${name}.qcow2`);
}

/** `ownerOf`: a file of QEMU's user. */
export async function giveToQemu(path: string, ownerOf: string): Promise<void> {
  const { uid, gid } = await stat(ownerOf);
  await chown(path, uid, gid).catch((cause: unknown) => {
    throw new SourceUnreadable(`${path} can't be given to user ${uid}, whose QEMU is to write it: run as root`, {
      cause,
    });
  });
}

/** Makes the folder, removes what a run that was killed left in it, and refuses when there is no room to begin. */
export async function prepareScratch(scratch: ScratchFolder): Promise<void> {
  const { folder } = scratch;
  await inFolder(folder, () => mkdir(folder, { recursive: true, mode: 0o711 }));
  await removeScratch(scratch);
  const free = await freeBytes(folder);
  if (free < scratch.freeBytesMin)
    throw new ScratchFull(
      `the scratch folder ${folder} has ${free} bytes free, and scratchFreeMiBMin wants ${scratch.freeBytesMin}: make room, or name another folder`,
    );
}

export async function removeScratch({ folder, prefix }: ScratchFolder): Promise<void> {
  for (const name of await inFolder(folder, () => readdir(folder)))
    if (name.startsWith(prefix)) await rm(join(folder, name), { recursive: true, force: true });
}

/** Calls back once when too little room is left; a guest whose writes find none is stopped by QEMU. */
export function watchScratch(
  { folder, freeBytesMin }: ScratchFolder,
  onFull: (error: ScratchFull) => void,
): Disposable {
  const stopping = new AbortController();
  const watch = async (): Promise<void> => {
    while (!stopping.signal.aborted) {
      const free = await freeBytes(folder);
      if (free < freeBytesMin) {
        onFull(
          new ScratchFull(
            `the scratch folder ${folder} has ${free} bytes left, less than scratchFreeMiBMin: the snapshot was given up so that the guest goes on`,
          ),
        );
        return;
      }
      await sleep(watchPauseMs, undefined, { signal: stopping.signal }).catch(() => undefined);
    }
  };
  watch().catch((cause: unknown) =>
    onFull(new ScratchFull(`the scratch folder ${folder} can't be watched`, { cause })),
  );
  return { [Symbol.dispose]: () => stopping.abort() };
}

export async function freeBytes(folder: string): Promise<number> {
  const { bavail, bsize } = await inFolder(folder, () => statfs(folder));
  return bavail * bsize;
}

async function inFolder<T>(folder: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    const why = cause instanceof Error && 'code' in cause ? String(cause.code) : String(cause);
    throw new SourceUnreadable(
      `the scratch folder ${folder} can't be used (${why}): name another one, or see its permissions`,
      {
        cause,
      },
    );
  }
}
