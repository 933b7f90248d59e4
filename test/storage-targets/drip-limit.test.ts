import { Readable } from 'node:stream';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { readBody } from '../../storage-targets/answer-body.ts';
import { dripWindowMs } from '../../storage-targets/drip-limit.ts';

const length = 100_000;

describe('an answer that drips', () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] }));
  afterEach(() => void vi.useRealTimers());

  function reading(pace?: (most: number) => number | Promise<number>) {
    const body = new Readable({ read: () => undefined });
    const answer = { body, announced: length, contentRange: undefined };
    const read = readBody(answer, null, 's3://bucket/key', new AbortController().signal, pace ? { pace } : {});
    read.catch(() => undefined);
    const comes = async (bytes: number) => {
      body.push(new Uint8Array(bytes));
      await new Promise(setImmediate);
      await vi.advanceTimersByTimeAsync(dripWindowMs);
    };
    return { body, read, comes };
  }

  it('is given up, and the message says so', async () => {
    const { read, comes } = reading();
    await comes(5_000);
    await comes(1_000);
    await expect(read).rejects.toThrow(/s3:\/\/bucket\/key: .*drips: 1000 bytes in/);
  });

  it('is waited for while it is only slow', async () => {
    const { body, read, comes } = reading();
    for (let left = length; left > 0; left -= 2_000) await comes(2_000);
    body.push(null);
    expect((await read).length).toBe(length);
  });

  it('is waited for while we ourselves take nothing, for as long as that is', async () => {
    const granted = Promise.withResolvers<number>();
    let asked = 0;
    const { body, read, comes } = reading((most) => (asked++ === 1 ? granted.promise : most));
    await comes(5_000);
    await comes(10);
    await vi.advanceTimersByTimeAsync(5 * dripWindowMs);
    granted.resolve(10);
    body.push(new Uint8Array(length - 5_010));
    body.push(null);
    expect((await read).length).toBe(length);
  });
});
