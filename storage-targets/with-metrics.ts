import type { ListedObject, StorageTarget } from './storage-target.ts';

export type Operation = 'put' | 'get' | 'head' | 'list' | 'delete' | 'extendRetention' | 'now';

/** What one kind of request has done since the counters were made. */
export interface OperationCounts {
  requests: number;
  /** Payload bytes of requests that succeeded. */
  bytes: number;
  /** By the error's `code`; cancellations count as `CANCELLED`. */
  errors: Record<string, number>;
  totalMs: number;
  longestMs: number;
}

/** Plain numbers, always current; callers read them and may subtract an earlier copy. */
export type TargetMetrics = Readonly<Record<Operation, OperationCounts>>;

/** What an S3 listing answers at once; a listing counts as one request for each page begun. */
const listedPerRequest = 1_000;

export function newTargetMetrics(): TargetMetrics {
  const none = (): OperationCounts => ({ requests: 0, bytes: 0, errors: {}, totalMs: 0, longestMs: 0 });
  return { put: none(), get: none(), head: none(), list: none(), delete: none(), extendRetention: none(), now: none() };
}

/** Counts what reaches the wrapped target. Put it innermost, or it counts waiting as work and retries as one. */
export function withMetrics(target: StorageTarget, metrics: TargetMetrics): StorageTarget {
  return {
    description: target.description,
    putIfAbsent: (name, bytes, options, signal) =>
      counted(
        metrics.put,
        signal,
        () => target.putIfAbsent(name, bytes, options, signal),
        () => bytes.length,
      ),
    get: (name, range, signal, options) =>
      counted(
        metrics.get,
        signal,
        () => target.get(name, range, signal, options),
        (bytes) => bytes.length,
      ),
    head: (name, signal) => counted(metrics.head, signal, () => target.head(name, signal)),
    list: (prefix, options, signal) => countedList(metrics.list, signal, target.list(prefix, options, signal)),
    delete: (names, signal) => counted(metrics.delete, signal, () => target.delete(names, signal)),
    extendRetention: (name, until, signal) =>
      counted(metrics.extendRetention, signal, () => target.extendRetention(name, until, signal)),
    now: (signal) => counted(metrics.now, signal, () => target.now(signal)),
    [Symbol.asyncDispose]: () => target[Symbol.asyncDispose](),
  };
}

async function counted<T>(
  counts: OperationCounts,
  signal: AbortSignal,
  work: () => Promise<T>,
  payload: (result: T) => number = () => 0,
): Promise<T> {
  counts.requests++;
  const began = performance.now();
  try {
    const result = await work();
    counts.bytes += payload(result);
    return result;
  } catch (error) {
    countError(counts, error, signal);
    throw error;
  } finally {
    countTime(counts, performance.now() - began);
  }
}

async function* countedList(
  counts: OperationCounts,
  signal: AbortSignal,
  objects: AsyncIterable<ListedObject>,
): AsyncGenerator<ListedObject> {
  const iterator = objects[Symbol.asyncIterator]();
  try {
    for (let seen = 0; ; seen++) {
      if (seen % listedPerRequest === 0) counts.requests++;
      const began = performance.now();
      const step = await iterator.next();
      countTime(counts, performance.now() - began);
      if (step.done) return;
      yield step.value;
    }
  } catch (error) {
    countError(counts, error, signal);
    throw error;
  } finally {
    await iterator.return?.();
  }
}

function countTime(counts: OperationCounts, ms: number): void {
  counts.totalMs += ms;
  counts.longestMs = Math.max(counts.longestMs, ms);
}

function countError(counts: OperationCounts, error: unknown, signal: AbortSignal): void {
  const code = signal.aborted ? 'CANCELLED' : codeOf(error);
  counts.errors[code] = (counts.errors[code] ?? 0) + 1;
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : 'UNKNOWN';
}
