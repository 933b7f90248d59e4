import { createHash, timingSafeEqual } from 'node:crypto';
import { DataKey, dataKeyBytes } from './data-key.ts';
import { KeyRefused, KeyWrapMismatch } from './errors.ts';
import { describeKeyContext, encodeKeyContext } from './key-context.ts';
import type { KeyContext } from './key-provider.ts';

/**
 * For key services that bind no context to a wrap, or not surely: what they wrap is the data key ‖ SHA-256(key context), 64
 * bytes (docs/format.md §5).
 */

const boundBytes = dataKeyBytes + 32;

/** The caller zeroes it. */
export function bindKey(key: DataKey, context: KeyContext): Uint8Array {
  const bound = new Uint8Array(boundBytes);
  bound.set(digestOf(context), dataKeyBytes);
  bound.set(key.bytes);
  return bound;
}

/** Zeroes `bound`. Throws KeyWrapMismatch for a wrap of another context. `by` names the key, for the message. */
export function openBoundKey(bound: Uint8Array, context: KeyContext, by: string): DataKey {
  try {
    if (bound.length !== boundBytes)
      throw new KeyRefused(`what ${by} unwrapped has ${bound.length} bytes, not ${boundBytes}: it is no data key`);
    if (!timingSafeEqual(bound.subarray(dataKeyBytes), digestOf(context)))
      throw new KeyWrapMismatch(
        `what ${by} unwrapped was wrapped for something other than ${describeKeyContext(context)}`,
      );
    return new DataKey(Uint8Array.from(bound.subarray(0, dataKeyBytes)));
  } finally {
    bound.fill(0);
  }
}

function digestOf(context: KeyContext): Uint8Array {
  return createHash('sha256').update(encodeKeyContext(context)).digest();
}
