import { Readable } from 'node:stream';
import { finished } from 'node:stream/promises';

import { DripLimit } from './drip-limit.ts';
import { RangeInvalid, StoreUnavailable } from './errors.ts';
import { memoryOf } from './socket-memory.ts';
import { type ByteRange, type GetOptions, type Pace, wholeObjectBytesMax } from './storage-target.ts';

/** An answer to a GET, whichever SDK brought it. */
export interface BodyAnswer {
  /** The `Content-Length` of what comes. */
  readonly announced: number | undefined;
  readonly contentRange: string | undefined;
  readonly body: unknown;
}

/**
 * The bytes of an answer to a GET, exactly as many as were asked for. The store is not trusted: what it announces is
 * checked before memory is taken for it, and what it sends may be neither more nor less.
 */
export async function readBody(
  answer: BodyAnswer,
  range: ByteRange | null,
  key: string,
  signal: AbortSignal,
  options: GetOptions,
): Promise<Uint8Array> {
  const { announced, contentRange, body } = answer;
  if (announced === undefined || !(body instanceof Readable)) {
    throw new StoreUnavailable(`${key}: the store answers without a body of known length`);
  }
  try {
    checkRange(contentRange, announced, range, key);
    return await collect(body, announced, key, signal, options);
  } catch (error) {
    // An unread answer would keep its connection busy for ever.
    body.destroy();
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

/** By events: an iterator over the chunks costs a tenth more, and garbage. */
async function collect(
  body: Readable,
  length: number,
  key: string,
  signal: AbortSignal,
  { pace, into }: GetOptions,
): Promise<Uint8Array> {
  // Not zeroed first: it is given out only once every byte of it was received.
  const bytes = into ?? new Uint8Array(Buffer.allocUnsafeSlow(length).buffer);
  let filled = 0;
  const memory = memoryOf(body);
  using _taking = memory?.startTaking();
  using drip = new DripLimit((reason) => body.destroy(new StoreUnavailable(`${key}: ${reason.message}`)));
  body.on('data', (chunk: Uint8Array) => {
    // The caller is released when a request is given up; what it gave is its own again.
    if (signal.aborted) return;
    if (filled + chunk.length > length) {
      body.destroy(new StoreUnavailable(`${key}: the store sends more than the ${length} bytes it announced`));
      return;
    }
    copyChunk(chunk, bytes, filled);
    filled += chunk.length;
    drip.note(chunk.length);
    const wait = pace === undefined ? null : waitFor(chunk.length, pace);
    memory?.noteTaken(chunk);
    if (memory?.holds(chunk) !== true) giveBack(chunk);
    if (wait === null) return;
    // The next chunk is not taken from the connection before: so the store, too, has to wait.
    body.pause();
    drip.hold();
    wait.then(
      () => {
        drip.goOn();
        body.resume();
      },
      (error: Error) => body.destroy(error),
    );
  });
  await finished(body);
  signal.throwIfAborted();
  if (filled !== length)
    throw new StoreUnavailable(`${key}: the store's answer ended after ${filled} of ${length} bytes`);
  return bytes;
}

/** Like `set`, which takes eleven times as long onto shared memory (see `crypto/copy-bytes.ts`): Node copies parts of a buffer by itself. */
function copyChunk(chunk: Uint8Array, into: Uint8Array, at: number): void {
  const source = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length);
  if (source.copy(into, at, 0, 1) === 1) source.copy(into, at + 1, 1);
}

/** Gives the memory of a chunk back at once, where the chunk is all of it: garbage collection is late with what lies outside its heap. */
function giveBack({ buffer, byteLength }: Uint8Array): void {
  if (buffer instanceof ArrayBuffer && buffer.byteLength === byteLength) buffer.transfer(0);
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
