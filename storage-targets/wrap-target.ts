import { Bandwidth } from './bandwidth.ts';
import type { StorageTarget } from './storage-target.ts';
import { type BandwidthLimits, withBandwidth } from './with-bandwidth.ts';
import { InFlightLimit, withLimit } from './with-limit.ts';
import { newTargetMetrics, type TargetMetrics, withMetrics } from './with-metrics.ts';
import { type RetryOptions, withRetry } from './with-retry.ts';

export interface WrapOptions {
  readonly inFlightMax: number;
  /** Bytes a second; null: unlimited. */
  readonly uploadBytesPerSecond: number | null;
  readonly downloadBytesPerSecond: number | null;
  readonly retry?: RetryOptions;
}

/** A target with every policy around it, and the handles to watch and adjust them while it runs. */
export interface WrappedTarget {
  readonly target: StorageTarget;
  readonly limit: InFlightLimit;
  readonly bandwidth: BandwidthLimits;
  readonly metrics: TargetMetrics;
}

/**
 * retry → limit → bandwidth → metrics → store. A pause between tries holds no slot (retry outside the limit); at most
 * the requests in flight wait for bandwidth, and every try pays for its bytes as they go out (bandwidth inside the
 * limit); the store's own time limits leave out that waiting; metrics see each request that really goes out, and nothing else.
 */
export function wrapTarget(store: StorageTarget, options: WrapOptions): WrappedTarget {
  const metrics = newTargetMetrics();
  const limit = new InFlightLimit({ max: options.inFlightMax });
  const bandwidth = {
    upload: new Bandwidth(options.uploadBytesPerSecond),
    download: new Bandwidth(options.downloadBytesPerSecond),
  };
  const limited = withLimit(withBandwidth(withMetrics(store, metrics), bandwidth), limit);
  return { target: withRetry(limited, options.retry), limit, bandwidth, metrics };
}
