import { Immutable } from '../storage-targets/errors.ts';
import type { StorageTarget } from '../storage-targets/storage-target.ts';
import type { Garbage } from './garbage.ts';

/** Deleting what nothing needs any more. */

export interface Swept {
  readonly objects: number;
  readonly bytes: number;
  /** Under object lock for some time yet. */
  readonly lockedObjects: number;
  readonly lockedBytes: number;
}

const batchMax = 500;

/** What a sweep would meet, as if nothing were locked. */
export async function countGarbage(garbage: AsyncIterable<Garbage>): Promise<Swept> {
  let [objects, bytes] = [0, 0];
  for await (const object of garbage) {
    objects++;
    bytes += object.bytes;
  }
  return { objects, bytes, lockedObjects: 0, lockedBytes: 0 };
}

/** Deletes in batches, as they are found. What is under object lock stays, and is counted. */
export async function sweep(
  target: StorageTarget,
  garbage: AsyncIterable<Garbage>,
  signal: AbortSignal,
): Promise<Swept> {
  let swept: Swept = { objects: 0, bytes: 0, lockedObjects: 0, lockedBytes: 0 };
  let batch: Garbage[] = [];
  for await (const object of garbage) {
    batch.push(object);
    if (batch.length < batchMax) continue;
    swept = await deleteBatch(target, batch, swept, signal);
    batch = [];
  }
  return batch.length === 0 ? swept : await deleteBatch(target, batch, swept, signal);
}

async function deleteBatch(
  target: StorageTarget,
  batch: readonly Garbage[],
  swept: Swept,
  signal: AbortSignal,
): Promise<Swept> {
  try {
    const names = batch.map(({ name }) => name);
    await target.delete(names, signal);
    return { ...swept, objects: swept.objects + batch.length, bytes: swept.bytes + total(batch) };
  } catch (error) {
    if (!(error instanceof Immutable)) throw error;
    return await deleteEach(target, batch, swept, signal);
  }
}

/** The store does not say which of a batch are locked. */
async function deleteEach(
  target: StorageTarget,
  batch: readonly Garbage[],
  before: Swept,
  signal: AbortSignal,
): Promise<Swept> {
  const deleted: Garbage[] = [];
  const locked: Garbage[] = [];
  for (const object of batch) ((await deleteUnlocked(target, object.name, signal)) ? deleted : locked).push(object);
  return {
    objects: before.objects + deleted.length,
    bytes: before.bytes + total(deleted),
    lockedObjects: before.lockedObjects + locked.length,
    lockedBytes: before.lockedBytes + total(locked),
  };
}

async function deleteUnlocked(target: StorageTarget, name: string, signal: AbortSignal): Promise<boolean> {
  try {
    await target.delete([name], signal);
    return true;
  } catch (error) {
    if (!(error instanceof Immutable)) throw error;
    return false;
  }
}

function total(objects: readonly Garbage[]): number {
  return objects.reduce((sum, { bytes }) => sum + bytes, 0);
}
