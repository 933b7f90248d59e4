import { StoreUnavailable } from './errors.ts';
import type { Pace } from './storage-target.ts';
import { TimeLimit } from './time-limit.ts';

/** The longest that one request may take in all, however steadily it drips. */
const requestMsMax = 15 * 60 * 1000;

export interface BoundedRequest {
  /** `s3://bucket/key` and the like, for the message. */
  readonly subject: string;
  readonly doing: string;
  readonly pace: Pace | undefined;
  /** Names what the SDK threw. */
  named(error: unknown): unknown;
}

/**
 * `work` gets a signal that also fires when the request takes too long, and the pace to keep, if there is one. The caller
 * is released at once on cancellation.
 */
export async function boundedRequest<T>(
  request: BoundedRequest,
  signal: AbortSignal,
  work: (signal: AbortSignal, pace: Pace | undefined) => Promise<T>,
): Promise<T> {
  signal.throwIfAborted();
  const { subject, doing, pace } = request;
  const controller = new AbortController();
  const stopped = Promise.withResolvers<never>();
  const stop = (reason: unknown) => {
    controller.abort(reason);
    stopped.reject(reason);
  };
  const cancel = () => stop(signal.reason);
  const late = () => stop(new StoreUnavailable(`${subject}: ${doing} took longer than ${requestMsMax} ms`));
  using limit = new TimeLimit(requestMsMax, late);
  signal.addEventListener('abort', cancel, { once: true });
  try {
    return await Promise.race([work(controller.signal, pace && limit.leavingOut(pace)), stopped.promise]);
  } catch (error) {
    // A store may answer before it has read a body: what still sends or receives must not outlive the call, or meet memory used anew.
    controller.abort(error);
    signal.throwIfAborted();
    throw request.named(error);
  } finally {
    signal.removeEventListener('abort', cancel);
  }
}
