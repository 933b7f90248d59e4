import type { Bandwidth } from './bandwidth.ts';
import type { Pace, StorageTarget } from './storage-target.ts';

export interface BandwidthLimits {
  readonly upload: Bandwidth;
  readonly download: Bandwidth;
}

/** Paces the bytes of uploads and downloads separately. Both can be changed while running; what has no payload is free. */
export function withBandwidth(target: StorageTarget, { upload, download }: BandwidthLimits): StorageTarget {
  return {
    ...unpaced(target),
    putIfAbsent: (name, bytes, options, signal) =>
      upload.transfer(bytes.length, signal, (pace) =>
        target.putIfAbsent(name, bytes, { ...options, pace: both(options.pace, pace) }, signal),
      ),
    // Objects that are read whole are control objects, and small.
    get: (name, range, signal, callers) =>
      download.transfer(range?.length ?? null, signal, (pace) => target.get(name, range, signal, both(callers, pace))),
  };
}

function both(callers: Pace | undefined, ours: Pace): Pace {
  if (callers === undefined) return ours;
  return async (most) => {
    const granted = await callers(most);
    for (let left = granted; left > 0; ) left -= await ours(left);
    return granted;
  };
}

function unpaced(target: StorageTarget): Omit<StorageTarget, 'putIfAbsent' | 'get'> {
  return {
    description: target.description,
    head: (name, signal) => target.head(name, signal),
    list: (prefix, options, signal) => target.list(prefix, options, signal),
    delete: (names, signal) => target.delete(names, signal),
    extendRetention: (name, until, signal) => target.extendRetention(name, until, signal),
    now: (signal) => target.now(signal),
    [Symbol.asyncDispose]: () => target[Symbol.asyncDispose](),
  };
}
