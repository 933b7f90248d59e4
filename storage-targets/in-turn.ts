import type { LimitFunction } from 'p-limit';

/** Waits for a turn, then does the work. Cancelled while waiting, it rejects at once with `signal.reason`. */
export function inTurn<T>(limit: LimitFunction, work: () => Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    signal.throwIfAborted();
    const cancel = () => reject(signal.reason);
    signal.addEventListener('abort', cancel, { once: true });
    const turn = async () => {
      signal.removeEventListener('abort', cancel);
      signal.throwIfAborted();
      return await work();
    };
    limit(turn).then(resolve, reject);
  });
}
