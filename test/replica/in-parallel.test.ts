import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { eachInParallel, inParallel } from '../../replica/in-parallel.ts';

const signal = new AbortController().signal;

describe('work in parallel', () => {
  it('gives the results in the order of the items, so many at a time', async () => {
    let running = 0;
    let most = 0;
    const results = await inParallel([30, 10, 20, 1], 2, signal, async (ms) => {
      most = Math.max(most, ++running);
      await sleep(ms);
      running--;
      return ms;
    });
    expect(results).toEqual([30, 10, 20, 1]);
    expect(most).toBe(2);
  });

  it('stops at the first failure: what runs is aborted and awaited, and nothing more begins', async () => {
    const begun: number[] = [];
    let ended = 0;
    const failing = inParallel([0, 1, 2, 3, 4, 5], 3, signal, async (item, itsSignal) => {
      begun.push(item);
      try {
        if (item === 1) throw new RangeError('the second one');
        await sleep(10_000, undefined, { signal: itsSignal });
      } finally {
        ended++;
      }
    });
    await expect(failing).rejects.toThrow(new RangeError('the second one'));
    expect(begun).toEqual([0, 1, 2]);
    expect(ended).toBe(3);
  });

  it('throws the reason of an abort from outside untouched', async () => {
    const stop = new AbortController();
    const waiting = inParallel([1, 2], 2, stop.signal, (_, itsSignal) =>
      sleep(10_000, undefined, { signal: itsSignal }),
    );
    const reason = new Error('enough');
    stop.abort(reason);
    await expect(waiting).rejects.toBe(reason);
  });
});

describe('work in parallel on what comes one after the other', () => {
  it('takes the next item as soon as there is room, and so many at a time', async () => {
    let running = 0;
    let most = 0;
    const done: number[] = [];
    async function* items() {
      for (let i = 0; i < 7; i++) yield i;
    }
    await eachInParallel(items, 3, signal, async (item) => {
      most = Math.max(most, ++running);
      await sleep(item % 3);
      running--;
      done.push(item);
    });
    expect(done.sort()).toEqual([0, 1, 2, 3, 4, 5, 6]);
    expect(most).toBe(3);
  });

  it('tells the maker of the items of a failure, however long the next one would take', async () => {
    async function* items(told: AbortSignal) {
      yield 1;
      await sleep(60_000, undefined, { signal: told });
      yield 2;
    }
    const failing = eachInParallel(items, 2, signal, async () => {
      throw new RangeError('the first one');
    });
    await expect(failing).rejects.toThrow(new RangeError('the first one'));
  });

  it('fails as the maker of the items does, once what runs has ended', async () => {
    let ended = false;
    async function* items() {
      yield 1;
      throw new RangeError('no more of them');
    }
    const failing = eachInParallel(items, 2, signal, async (_, itsSignal) => {
      await sleep(60_000, undefined, { signal: itsSignal }).catch(() => undefined);
      ended = true;
    });
    await expect(failing).rejects.toThrow(new RangeError('no more of them'));
    expect(ended).toBe(true);
  });

  it('throws the reason of an abort from outside untouched', async () => {
    const stop = new AbortController();
    async function* items() {
      yield 1;
    }
    const waiting = eachInParallel(items, 2, stop.signal, async (_, itsSignal) => {
      await sleep(60_000, undefined, { signal: itsSignal });
    });
    const reason = new Error('enough');
    stop.abort(reason);
    await expect(waiting).rejects.toBe(reason);
  });
});
