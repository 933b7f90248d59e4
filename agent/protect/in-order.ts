/**
 * Starts `work` for up to `aheadMax` items at a time and yields the results in the order of the items. The first failure is thrown
 * where its result is due; what was started is awaited before the generator ends, so that nothing outlives it.
 */
export async function* inOrder<In, Out>(
  items: AsyncIterable<In>,
  aheadMax: number,
  work: (item: In) => Promise<Out>,
): AsyncGenerator<Out> {
  const started: Promise<Out>[] = [];
  try {
    for await (const item of items) {
      const result = work(item);
      // Its rejection is thrown when its turn comes.
      result.catch(ignoreUntilDue);
      started.push(result);
      while (started.length >= aheadMax) yield await take(started);
    }
    while (started.length > 0) yield await take(started);
  } finally {
    await Promise.allSettled(started);
  }
}

async function take<Out>(started: Promise<Out>[]): Promise<Out> {
  const [first] = started;
  if (first === undefined) throw new Error('nothing was started');
  try {
    return await first;
  } finally {
    started.shift();
  }
}

function ignoreUntilDue(): undefined {
  return undefined;
}
