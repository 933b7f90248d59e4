import type { GetObjectCommandOutput } from '@aws-sdk/client-s3';

import { RangeInvalid, StoreUnavailable } from './errors.ts';
import { type ByteRange, type Pace, wholeObjectBytesMax } from './storage-target.ts';

/**
 * The bytes of an answer to a GET, exactly as many as were asked for. The store is not trusted: what it announces is
 * checked before memory is taken for it, and what it sends may be neither more nor less.
 */
export async function readBody(
  answer: GetObjectCommandOutput,
  range: ByteRange | null,
  key: string,
  signal: AbortSignal,
  pace: Pace | undefined,
): Promise<Uint8Array> {
  const announced = answer.ContentLength;
  if (announced === undefined || answer.Body === undefined) {
    throw new StoreUnavailable(`${key}: the store answers without a body of known length`);
  }
  const body = answer.Body as AsyncIterable<Uint8Array>;
  try {
    checkRange(answer.ContentRange, announced, range, key);
    return await collect(body, announced, key, signal, pace);
  } catch (error) {
    // An unread answer would keep its connection busy for ever.
    if (isDestroyable(body)) body.destroy();
    throw error;
  }
}

function checkRange(contentRange: string | undefined, announced: number, range: ByteRange | null, key: string): void {
  if (range === null) {
    if (announced > wholeObjectBytesMax) {
      throw new RangeInvalid(`${key} has ${announced} bytes; at most ${wholeObjectBytesMax} are read at once`);
    }
    return;
  }
  const { offset, length } = range;
  const given = /^bytes (\d+)-/.exec(contentRange ?? '');
  if (given === null || Number(given[1]) !== offset || announced > length) {
    throw new StoreUnavailable(
      `${key}: asked for ${length} bytes from ${offset}, the store answers ${contentRange ?? `all ${announced}`}`,
    );
  }
  if (announced < length) {
    throw new RangeInvalid(`${key} ends before the ${length} bytes from ${offset}: there are only ${announced}`);
  }
}

async function collect(
  body: AsyncIterable<Uint8Array>,
  length: number,
  key: string,
  signal: AbortSignal,
  pace: Pace | undefined,
): Promise<Uint8Array> {
  // Not zeroed first: it is given out only once every byte of it was received.
  const bytes = new Uint8Array(Buffer.allocUnsafeSlow(length).buffer);
  let filled = 0;
  for await (const chunk of body) {
    if (filled + chunk.length > length)
      throw new StoreUnavailable(`${key}: the store sends more than the ${length} bytes it announced`);
    bytes.set(chunk, filled);
    filled += chunk.length;
    // The next chunk is not taken from the connection before: so the store, too, has to wait.
    const wait = pace === undefined ? null : waitFor(chunk.length, pace);
    if (wait !== null) await wait;
    signal.throwIfAborted();
  }
  if (filled !== length)
    throw new StoreUnavailable(`${key}: the store's answer ended after ${filled} of ${length} bytes`);
  return bytes;
}

/** Until all of the bytes are granted; null when they are already. */
function waitFor(bytes: number, pace: Pace): Promise<void> | null {
  for (let left = bytes; left > 0; ) {
    const granted = pace(left);
    if (typeof granted !== 'number') return granted.then((count) => waitFor(left - count, pace) ?? undefined);
    left -= granted;
  }
  return null;
}

function isDestroyable(body: unknown): body is { destroy(): void } {
  return typeof body === 'object' && body !== null && 'destroy' in body && typeof body.destroy === 'function';
}
