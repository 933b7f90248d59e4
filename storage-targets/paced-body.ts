import { Readable } from 'node:stream';

import type { Pace } from './storage-target.ts';

/**
 * The bytes as a stream that gives them out as they are granted, in pieces that are views and no copies. A cancelled
 * transfer ends it in the middle; whoever sends it is cancelled by the same signal.
 */
export function pacedBody(bytes: Uint8Array, pace: Pace): Readable {
  let at = 0;
  return new Readable({
    // One piece at a time: what lies in a buffer can't be held back any more.
    highWaterMark: 1,
    read() {
      const give = (granted: number): void => {
        this.push(bytes.subarray(at, at + granted));
        at += granted;
        if (at === bytes.length) this.push(null);
      };
      const granted = pace(bytes.length - at);
      if (typeof granted === 'number') give(granted);
      else granted.then(give, () => this.destroy());
    },
  });
}
