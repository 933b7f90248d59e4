import { untilAborted } from '../until-aborted.ts';

/** What a function calls back with, as a promise. `gone`: from then on it may never call back. */
export function settled<Value>(
  start: (done: (error: Error | null | undefined, value: Value) => void) => unknown,
  gone: AbortSignal,
): Promise<Value> {
  return untilAborted(
    new Promise<Value>((resolve, reject) => {
      gone.throwIfAborted();
      start((error, value) => (error ? reject(error) : resolve(value)));
    }),
    gone,
  );
}
