import { describe, expect, it } from 'vitest';
import { StoreUnavailable, Throttled } from '../../storage-targets/errors.ts';
import { InFlightLimit } from '../../storage-targets/with-limit.ts';

const never = new AbortController().signal;

/** Work that ends when told to. */
function held() {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  return { work: () => promise, end: resolve, fail: reject };
}

const settle = () => new Promise((resolve) => setImmediate(resolve));

describe('the in-flight limit', () => {
  it('lets so many run at once and the others wait', async () => {
    const limit = new InFlightLimit({ max: 3 });
    let running = 0;
    let most = 0;
    const work = async () => {
      most = Math.max(most, ++running);
      await settle();
      running--;
    };
    await Promise.all(Array.from({ length: 20 }, () => limit.run(work, never)));
    expect(most).toBe(3);
    expect(running).toBe(0);
  });

  it('is halved by a throttling store, once for answers that come together, and never below one', async () => {
    let nowMs = 0;
    const limit = new InFlightLimit({ max: 16, now: () => nowMs });
    const throttle = () => limit.run(() => Promise.reject(new Throttled('slower', null)), never).catch(() => undefined);
    await Promise.all([throttle(), throttle(), throttle()]);
    expect(limit.current).toBe(8);
    for (const expected of [4, 2, 1, 1]) {
      nowMs += 5_000;
      await throttle();
      expect(limit.current).toBe(expected);
    }
  });

  it('grows by one after as many successes as run at once, up to its maximum', async () => {
    let nowMs = 0;
    const limit = new InFlightLimit({ max: 4, now: () => (nowMs += 5_000) });
    const throttle = () => limit.run(() => Promise.reject(new Throttled('slower', null)), never).catch(() => undefined);
    const succeed = () => limit.run(() => Promise.resolve(), never);
    await throttle();
    await throttle();
    const seen: number[] = [];
    for (let i = 0; i < 12; i++) {
      await succeed();
      seen.push(limit.current);
    }
    expect(seen).toEqual([2, 2, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4]);
  });

  it('is left alone by other errors', async () => {
    const limit = new InFlightLimit({ max: 4 });
    await limit.run(() => Promise.reject(new StoreUnavailable('gone')), never).catch(() => undefined);
    expect(limit.current).toBe(4);
  });

  it('can be changed while requests wait', async () => {
    const limit = new InFlightLimit({ max: 1 });
    const works = [held(), held(), held()];
    const runs = works.map(({ work }) => limit.run(work, never));
    await settle();
    expect(limit.inFlight).toBe(1);
    limit.setMax(3);
    await settle();
    expect(limit.inFlight).toBe(3);
    for (const { end } of works) end();
    await Promise.all(runs);
    limit.setMax(2);
    expect(limit.current).toBe(2);
  });

  it('a cancelled request stops waiting at once and never runs', async () => {
    const limit = new InFlightLimit({ max: 1 });
    const first = held();
    const running = limit.run(first.work, never);
    const controller = new AbortController();
    let ran = false;
    const waiting = limit.run(async () => {
      ran = true;
    }, controller.signal);
    const reason = new Error('stop');
    controller.abort(reason);
    await expect(waiting).rejects.toBe(reason);
    first.end();
    await running;
    await settle();
    expect(ran).toBe(false);
  });
});
