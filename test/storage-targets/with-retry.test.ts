import { createHash } from 'node:crypto';
import { beforeEach, describe, expect, it } from 'vitest';
import {
  AccessDenied,
  Conflict,
  ObjectExists,
  ObjectNotFound,
  StoreUnavailable,
  Throttled,
} from '../../storage-targets/errors.ts';
import { openFilesystemTarget } from '../../storage-targets/filesystem.ts';
import type { StorageTarget } from '../../storage-targets/storage-target.ts';
import { withRetry } from '../../storage-targets/with-retry.ts';
import { type Faults, withFaults } from './faulty-target.ts';
import { newDirectory } from './new-directory.ts';
import { SteppedClock } from './stepped-clock.ts';

const never = new AbortController().signal;
const bytesOf = (text: string) => new TextEncoder().encode(text);
const put = (target: StorageTarget, name: string, text: string) => {
  const bytes = bytesOf(text);
  return target.putIfAbsent(
    name,
    bytes,
    { sha256: new Uint8Array(createHash('sha256').update(bytes).digest()) },
    never,
  );
};

describe('retry', () => {
  let store: StorageTarget;
  let clock: SteppedClock;
  beforeEach(async () => {
    store = await openFilesystemTarget({ directory: await newDirectory() });
    clock = new SteppedClock();
  });
  const retrying = (faults: Faults, options = {}) =>
    withRetry(withFaults(store, faults), { clock, random: () => 0.999_999, ...options });
  const twice =
    (how: 'refuse' | 'lose', error: Error): Faults =>
    (_, before) =>
      before < 2 ? { how, error } : null;

  it.each([new StoreUnavailable('gone'), new Throttled('slower', null), new Conflict('racing')])(
    'tries again after %s, with pauses that double',
    async (error) => {
      const target = retrying(twice('refuse', error));
      await put(target, 'a', 'content');
      expect(await store.get('a', null, never)).toEqual(bytesOf('content'));
      expect(clock.slept.map(Math.round)).toEqual([200, 400]);
      expect(await retrying(twice('refuse', error)).get('a', null, never)).toEqual(bytesOf('content'));
    },
  );

  it('pauses at random, at most 20 seconds', async () => {
    const target = retrying(
      (_, before) => (before < 11 ? { how: 'refuse', error: new StoreUnavailable('gone') } : null),
      {
        attemptsMax: 12,
        random: () => 0.5,
      },
    );
    await put(target, 'a', 'content');
    expect(clock.slept).toEqual([125, 250, 500, 1000, 2000, 4000, 8000, 12_500, 12_500, 12_500, 12_500]);
  });

  it('outlasts six seconds without an answer, however the dice fall', async () => {
    const target = retrying(
      (_, before) => (before < 7 ? { how: 'refuse', error: new StoreUnavailable('gone') } : null),
      { random: () => 0 },
    );
    await put(target, 'a', 'content');
    expect(clock.slept.reduce((sum, ms) => sum + ms)).toBeGreaterThan(6_000);
  });

  it('waits as long as a throttling store asks, but not for ever', async () => {
    await put(retrying(twice('refuse', new Throttled('slower', 5_000))), 'a', 'content');
    expect(clock.slept).toEqual([5_000, 5_000]);
    await put(retrying(twice('refuse', new Throttled('slower', 86_400_000))), 'b', 'content');
    expect(clock.slept.slice(2)).toEqual([60_000, 60_000]);
  });

  it('gives up after its last try, and before its deadline', async () => {
    const error = new StoreUnavailable('gone');
    await expect(
      put(
        retrying(() => ({ how: 'refuse', error }), { attemptsMax: 3 }),
        'a',
        'x',
      ),
    ).rejects.toBe(error);
    expect(clock.slept).toHaveLength(2);
    const began = clock.now();
    await expect(
      put(
        retrying(() => ({ how: 'refuse', error }), { attemptsMax: 1_000, deadlineMs: 30_000 }),
        'a',
        'x',
      ),
    ).rejects.toBe(error);
    expect(clock.now() - began).toBeLessThanOrEqual(30_000);
    expect(clock.now() - began).toBeGreaterThan(10_000);
  });

  it('passes on at once what cannot pass', async () => {
    const denied = new AccessDenied('no');
    await expect(
      put(
        retrying(() => ({ how: 'refuse', error: denied })),
        'a',
        'x',
      ),
    ).rejects.toBe(denied);
    await expect(retrying(() => null).get('missing', null, never)).rejects.toThrow(ObjectNotFound);
    expect(clock.slept).toEqual([]);
  });

  it('a put whose answer was lost, and is then told that the name exists, succeeded if the bytes are its own', async () => {
    await put(retrying(twice('lose', new StoreUnavailable('no answer'))), 'a', 'mine');
    expect(await store.get('a', null, never)).toEqual(bytesOf('mine'));
  });

  it('a put whose answer was lost, and whose name holds other bytes, of the same size too, exists', async () => {
    await put(store, 'same-size', 'them');
    await put(store, 'other-size', 'theirs');
    const target = () =>
      retrying((operation, before) =>
        operation === 'put' && before === 0 ? { how: 'refuse', error: new StoreUnavailable('no answer') } : null,
      );
    await expect(put(target(), 'same-size', 'mine')).rejects.toThrow(ObjectExists);
    await expect(put(target(), 'other-size', 'mine')).rejects.toThrow(ObjectExists);
  });

  it('a put that is refused at its first try exists, even when the bytes are the same', async () => {
    await put(store, 'a', 'same');
    await expect(
      put(
        retrying(() => null),
        'a',
        'same',
      ),
    ).rejects.toThrow(ObjectExists);
  });

  it('reading back may fail for a while too', async () => {
    const target = retrying((operation, before) => {
      if (operation === 'put' && before === 0) return { how: 'lose', error: new StoreUnavailable('no answer') };
      if (operation === 'get' && before < 2) return { how: 'refuse', error: new StoreUnavailable('gone') };
      return null;
    });
    await put(target, 'a', 'mine');
    expect(await store.get('a', null, never)).toEqual(bytesOf('mine'));
  });

  it('a listing that breaks goes on after the last name, within its limit', async () => {
    const all = ['l/1', 'l/2', 'l/3', 'l/4', 'l/5', 'l/6', 'l/7'];
    for (const name of all) await put(store, name, name);
    const breaking: Faults = (_, before) =>
      before < 3 ? { how: 'refuse', error: new StoreUnavailable('broken') } : null;
    const listed = async (limit?: number) => {
      const names: string[] = [];
      const options = { startAfter: 'l/1', ...(limit !== undefined && { limit }) };
      for await (const { name } of retrying(breaking).list('l/', options, never)) names.push(name);
      return names;
    };
    expect(await listed()).toEqual(all.slice(1));
    expect(await listed(5)).toEqual(all.slice(1, 6));
  });

  it('cancelled while it pauses, rejects with the reason', async () => {
    const reason = new Error('stop');
    const controller = new AbortController();
    const target = withRetry(
      withFaults(store, () => {
        setTimeout(() => controller.abort(reason), 5);
        return { how: 'refuse', error: new Throttled('slower', 60_000) };
      }),
    );
    await expect(target.get('a', null, controller.signal)).rejects.toBe(reason);
  });
});
