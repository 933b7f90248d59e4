import { setMaxListeners } from 'node:events';
import pLimit from 'p-limit';

/**
 * Does `work` for every item, at most `atOnceMax` at a time, and resolves with the results in the items' order. After the first
 * failure nothing more begins and what is under way is aborted; it is thrown once all of that has ended, so that nothing outlives this call.
 */
export async function inParallel<In, Out>(
  items: readonly In[],
  atOnceMax: number,
  signal: AbortSignal,
  work: (item: In, signal: AbortSignal) => Promise<Out>,
): Promise<readonly Out[]> {
  const stop = new AbortController();
  const either = AbortSignal.any([signal, stop.signal]);
  setMaxListeners(0, either);
  const limit = pLimit(atOnceMax);
  const settled = await Promise.allSettled(
    items.map((item) =>
      limit(async () => {
        either.throwIfAborted();
        try {
          return await work(item, either);
        } catch (error) {
          stop.abort(error);
          throw error;
        }
      }),
    ),
  );
  either.throwIfAborted();
  return settled.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
}

/**
 * The same for items that come one after the other and whose work gives nothing back: the next one is asked for as soon as there is room.
 * What their maker throws counts as a failure, and it is told of one by its signal.
 */
export async function eachInParallel<In>(
  items: (signal: AbortSignal) => AsyncIterable<In>,
  atOnceMax: number,
  signal: AbortSignal,
  work: (item: In, signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const stop = new AbortController();
  const either = AbortSignal.any([signal, stop.signal]);
  setMaxListeners(0, either);
  const underWay = new Set<Promise<void>>();
  const begin = (item: In): void => {
    const done: Promise<void> = work(item, either)
      .catch((error: unknown) => stop.abort(error))
      .finally(() => underWay.delete(done));
    underWay.add(done);
  };
  try {
    for await (const item of items(either)) {
      either.throwIfAborted();
      begin(item);
      while (underWay.size >= atOnceMax) await Promise.race(underWay);
    }
  } catch (error) {
    stop.abort(error);
  }
  await Promise.all(underWay);
  either.throwIfAborted();
}
