import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { TimeLimit } from '../../storage-targets/time-limit.ts';

const limitMs = 100;

describe('the time limit of a request', () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  function limited() {
    const seen = { late: false };
    const limit = new TimeLimit(limitMs, () => {
      seen.late = true;
    });
    return { seen, limit };
  }

  it('is over when it is over', async () => {
    const { seen, limit } = limited();
    using _ = limit;
    await vi.advanceTimersByTimeAsync(limitMs - 1);
    expect(seen.late).toBe(false);
    await vi.advanceTimersByTimeAsync(1);
    expect(seen.late).toBe(true);
  });

  it('leaves out the waits for a pace, those that have ended and the one that has not', async () => {
    const { seen, limit } = limited();
    using _ = limit;
    const grants = [Promise.withResolvers<number>(), Promise.withResolvers<number>()];
    const pace = limit.leavingOut(() => grants.shift()?.promise ?? 1);
    const [first, second] = [...grants];
    const ended = pace(1);
    await vi.advanceTimersByTimeAsync(60);
    first?.resolve(1);
    await ended;
    const pending = pace(1);
    // 60 were waited for and left out; since then nothing but waiting.
    await vi.advanceTimersByTimeAsync(10 * limitMs);
    expect(seen.late).toBe(false);
    second?.resolve(1);
    await pending;
    await vi.advanceTimersByTimeAsync(limitMs - 2);
    expect(seen.late).toBe(false);
    await vi.advanceTimersByTimeAsync(limitMs);
    expect(seen.late).toBe(true);
  });

  it('is gone once the request has ended', async () => {
    const { seen, limit } = limited();
    limit[Symbol.dispose]();
    await vi.advanceTimersByTimeAsync(limitMs);
    expect(seen.late).toBe(false);
  });
});
