import { describe, expect, it } from 'vitest';
import { Bandwidth } from '../../storage-targets/bandwidth.ts';
import { SteppedClock } from './stepped-clock.ts';

const never = new AbortController().signal;
const MB = 1_000_000;

describe('a bandwidth limit', () => {
  it('keeps the average, whatever the size of objects', async () => {
    for (const size of [1_000, 100_000, 8 * MB]) {
      const clock = new SteppedClock();
      const bandwidth = new Bandwidth(2 * MB, clock);
      for (let sent = 0; sent < 80 * MB; sent += size) await bandwidth.take(size, never);
      await bandwidth.take(0, never);
      expect(clock.now()).toBeGreaterThan(39_700);
      expect(clock.now()).toBeLessThan(40_300);
    }
  });

  it('earns at most some tenths of a second by being idle', async () => {
    const clock = new SteppedClock();
    const bandwidth = new Bandwidth(MB, clock);
    await clock.sleep(3_600_000, never);
    const began = clock.now();
    for (let i = 0; i < 11; i++) await bandwidth.take(MB, never);
    expect(clock.now() - began).toBeGreaterThanOrEqual(10_750);
  });

  it('lets transfers take turns, so that a small one does not wait for the large ones before it', async () => {
    const bandwidth = new Bandwidth(MB, new SteppedClock());
    const order: number[] = [];
    const sizes = [5 * MB, 3 * MB, 10];
    await Promise.all(sizes.map((size, index) => bandwidth.take(size, never).then(() => order.push(index))));
    expect(order).toEqual([2, 1, 0]);
  });

  it('gives no piece that is worth more than a fiftieth of a second', async () => {
    const bandwidth = new Bandwidth(MB, new SteppedClock());
    for (let i = 0; i < 100; i++) expect(await bandwidth.grant(8 * MB, never)).toBeLessThanOrEqual(MB / 50);
  });

  it('runs few transfers at once at a low rate, and all of them when it is taken away', async () => {
    const bandwidth = new Bandwidth(MB, new SteppedClock());
    let [running, most] = [0, 0];
    const { promise: over, resolve: end } = Promise.withResolvers<void>();
    const begin = (bytes: number) =>
      bandwidth.transfer(bytes, never, async () => {
        most = Math.max(most, ++running);
        await over;
        running--;
      });
    const transfers = Array.from({ length: 10 }, () => begin(8 * MB));
    await new Promise(setImmediate);
    expect(most).toBe(2);
    const small = begin(100);
    expect(running).toBe(3);
    bandwidth.set(null);
    await new Promise(setImmediate);
    expect(running).toBe(11);
    end();
    await Promise.all([...transfers, small]);
  });

  it('can be changed while transfers wait, and taken away', async () => {
    const clock = new SteppedClock();
    const bandwidth = new Bandwidth(1_000, clock);
    await bandwidth.take(100_000, never);
    const before = clock.now();
    const waiting = bandwidth.take(100_000, never);
    await Promise.resolve();
    bandwidth.set(100_000);
    await waiting;
    expect(clock.now() - before).toBeLessThan(5_000);
    bandwidth.set(null);
    const began = clock.now();
    for (let i = 0; i < 100; i++) await bandwidth.take(100 * MB, never);
    expect(clock.now()).toBe(began);
  });

  it('does not make up for the old rate when a lower one comes', async () => {
    const clock = new SteppedClock();
    const bandwidth = new Bandwidth(100 * MB, clock);
    await bandwidth.take(10 * MB, never);
    bandwidth.set(1_000);
    const began = clock.now();
    await bandwidth.take(1_000, never);
    expect(clock.now() - began).toBeLessThan(1_200);
  });

  it('a cancelled transfer rejects with the reason, takes nothing, and lets the others pass', async () => {
    const bandwidth = new Bandwidth(100 * MB);
    await bandwidth.take(10 * MB, never);
    const controller = new AbortController();
    const reason = new Error('stop');
    const cancelled = bandwidth.take(1_000 * MB, controller.signal);
    const next = bandwidth.take(1, never);
    controller.abort(reason);
    await expect(cancelled).rejects.toBe(reason);
    const began = performance.now();
    await next;
    expect(performance.now() - began).toBeLessThan(1_000);
  });
});
