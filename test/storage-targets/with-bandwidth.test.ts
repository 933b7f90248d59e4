import { describe, expect, it } from 'vitest';
import { Bandwidth } from '../../storage-targets/with-bandwidth.ts';
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

  it('earns at most a tenth of a second by being idle', async () => {
    const clock = new SteppedClock();
    const bandwidth = new Bandwidth(MB, clock);
    await clock.sleep(3_600_000, never);
    const began = clock.now();
    for (let i = 0; i < 11; i++) await bandwidth.take(MB, never);
    expect(clock.now() - began).toBeGreaterThanOrEqual(9_900);
  });

  it('serves in the order of asking', async () => {
    const bandwidth = new Bandwidth(MB, new SteppedClock());
    const order: number[] = [];
    const sizes = [5 * MB, 10, 3 * MB, 10];
    await Promise.all(sizes.map((size, index) => bandwidth.take(size, never).then(() => order.push(index))));
    expect(order).toEqual([0, 1, 2, 3]);
  });

  it('can be changed while transfers wait, and taken away', async () => {
    const clock = new SteppedClock();
    const bandwidth = new Bandwidth(1_000, clock);
    await bandwidth.take(100_000, never);
    const waiting = bandwidth.take(100_000, never);
    await Promise.resolve();
    bandwidth.set(100_000);
    await waiting;
    expect(clock.now()).toBeLessThan(5_000);
    bandwidth.set(null);
    const began = clock.now();
    for (let i = 0; i < 100; i++) await bandwidth.take(100 * MB, never);
    expect(clock.now()).toBe(began);
  });

  it('charges what is known only afterwards to the next transfer', async () => {
    const clock = new SteppedClock();
    const bandwidth = new Bandwidth(MB, clock);
    bandwidth.charge(5 * MB);
    await bandwidth.take(0, never);
    expect(clock.now()).toBeGreaterThanOrEqual(5_000);
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
