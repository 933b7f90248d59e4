import type { Bandwidth } from './bandwidth.ts';
import { type Pace, type StorageTarget, wholeObjectBytesMax } from './storage-target.ts';

export interface BandwidthLimits {
  readonly upload: Bandwidth;
  readonly download: Bandwidth;
}

/** Of a request and its answer: small parts should not come above the limit by them. */
const headersBytes = 4 * 1024;

/**
 * Paces the bytes of uploads and downloads separately. Both can be changed while running; what has no payload is free.
 *
 * Holding back an answer is not enough: the kernels take megabytes of it ahead of whoever reads. So under a limit a range
 * is asked for in parts, each of them paid for before; whatever was not (another limit has come) is paid for as it is read.
 */
export function withBandwidth(target: StorageTarget, { upload, download }: BandwidthLimits): StorageTarget {
  return {
    ...unpaced(target),
    putIfAbsent: (name, bytes, options, signal) =>
      upload.transfer(bytes.length, signal, (pace) =>
        target.putIfAbsent(name, bytes, { ...options, pace: both(options.pace, pace) }, signal),
      ),
    async get(name, range, signal, options = {}) {
      const pace = (paid: number) => both(options.pace, afterPaid(paid, download, signal));
      // Objects that are read whole are control objects, and small. A hostile length takes no memory here.
      const inParts = range !== null && range.length <= wholeObjectBytesMax && download.bytesPerSecond !== null;
      if (!inParts) return await target.get(name, range, signal, { ...options, pace: pace(0) });
      const whole = options.into ?? new Uint8Array(range.length);
      for (let at = 0; at < whole.length; ) {
        const length = Math.min(whole.length - at, download.requestBytes);
        const part = { offset: range.offset + at, length };
        // Few are paid for at once: a store that stalls would deliver them all together.
        await download.transfer(length, signal, async () => {
          await download.prepay(length + headersBytes, signal);
          const into = whole.subarray(at, at + length);
          return await target.get(name, part, signal, { pace: pace(length), into });
        });
        at += length;
      }
      return whole;
    },
  };
}

function afterPaid(paid: number, limit: Bandwidth, signal: AbortSignal): Pace {
  let left = paid;
  return (most) => {
    if (left === 0) return limit.grant(most, signal);
    const granted = Math.min(most, left);
    left -= granted;
    return granted;
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
