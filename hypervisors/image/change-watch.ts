import type { BigIntStats } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { isWriteProtected, writeCounters } from './block-device.ts';

/** File times move in ticks of up to 10 ms. Two writes in one tick look like one, so a fresh tick is waited out. */
const timestampTickMs = 10;

/** Notices that a disk was written between the snapshot and now. */
export interface ChangeWatch {
  /** Known before the first byte is read: the disk is in use and can't hold still. Null when it may. */
  readonly liveBecause: string | null;
  /** What happened to it since, in words for the operator; null when nothing did. */
  whatChanged(): Promise<string | null>;
}

/** `stat` was taken from the file that is being read. The path is opened anew later: NFS checks its caches only then. */
export async function watchFile(path: string, stat: BigIntStats, signal: AbortSignal): Promise<ChangeWatch> {
  const ageMs = Date.now() - Number(stat.mtimeMs > stat.ctimeMs ? stat.mtimeMs : stat.ctimeMs);
  if (Math.abs(ageMs) <= timestampTickMs) await sleep(2 * timestampTickMs, undefined, { signal });
  return { liveBecause: null, whatChanged: async () => compareStats(stat, await statByPath(path)) };
}

export async function watchDevice(device: string, handle: FileHandle, claimed: boolean): Promise<ChangeWatch> {
  const before = await writeCounters(device, handle);
  return {
    liveBecause: await whyLive(device, claimed, before),
    whatChanged: async () => {
      // A device that was pulled out has no counters any more, and flushing it fails.
      const after = await writeCounters(device, handle).catch(() => 'no answer');
      return after === before ? null : `it was written or removed: ${before} before, ${after} after`;
    },
  };
}

async function whyLive(device: string, claimed: boolean, counters: string | null): Promise<string | null> {
  if (!claimed && !(await isWriteProtected(device))) return 'it is mounted, or part of another device';
  if (counters === null) return 'the kernel keeps no write counters for it (queue/iostats is 0)';
  return null;
}

async function statByPath(path: string): Promise<BigIntStats | null> {
  try {
    await using handle = await open(path, 'r');
    return await handle.stat({ bigint: true });
  } catch {
    // Whatever the reason, the file that was read is no longer to be found there, and that is the answer.
    return null;
  }
}

function compareStats(before: BigIntStats, after: BigIntStats | null): string | null {
  if (after === null) return 'it can no longer be opened';
  if (after.dev !== before.dev || after.ino !== before.ino) return 'another file took its place';
  if (after.size !== before.size) return `its size went from ${before.size} to ${after.size} bytes`;
  if (after.mtimeNs !== before.mtimeNs) return 'it was written';
  if (after.ctimeNs !== before.ctimeNs) return 'its owner, mode, links or content changed';
  return null;
}
