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
