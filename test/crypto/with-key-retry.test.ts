import { describe, expect, it } from 'vitest';
import { DataKey } from '../../crypto/data-key.ts';
import { KeyRefused, KeyServiceUnavailable } from '../../crypto/errors.ts';
import type { KeyProvider } from '../../crypto/key-provider.ts';
import { generateRecoveryKey, recoveryKeyFromPem } from '../../crypto/recovery-key.ts';
import { withKeyRetry } from '../../crypto/with-key-retry.ts';
import { keyProviderContract, sampleContext } from '../contract/key-provider.ts';

const never = new AbortController().signal;

/** Fails with each of `failures` in turn, then lets calls through to `inner`. */
function failingFirst(inner: KeyProvider, failures: Error[]): KeyProvider {
  const failOrPass = async <T>(call: () => Promise<T>): Promise<T> => {
    const failure = failures.shift();
    if (failure) throw failure;
    return call();
  };
  return {
    provider: inner.provider,
    keyId: inner.keyId,
    generateDataKey: (context, signal) => failOrPass(() => inner.generateDataKey(context, signal)),
    wrap: (key, context, signal) => failOrPass(() => inner.wrap(key, context, signal)),
    unwrap: (wrapped, context, signal) => failOrPass(() => inner.unwrap(wrapped, context, signal)),
  };
}

const recovery = async () => recoveryKeyFromPem((await generateRecoveryKey()).privatePem);
const away = () => new KeyServiceUnavailable('away');

keyProviderContract({
  name: 'with-key-retry over a provider that is away at first',
  alteredBytesMax: 4,
  open: async () => ({
    one: withKeyRetry(failingFirst(await recovery(), [away(), away()]), { baseMs: 1 }),
    other: withKeyRetry(await recovery()),
  }),
});

describe('retrying a key service', () => {
  const inner = recovery();

  it.each(['generateDataKey', 'wrap', 'unwrap'] as const)(
    'gets %s through after failures below the bound',
    async (call) => {
      const made = await (await inner).generateDataKey(sampleContext, never);
      using key = made.key;
      const failures = [away(), away(), away()];
      const retrying = withKeyRetry(failingFirst(await inner, failures), { attemptsMax: 4, baseMs: 1 });
      if (call === 'generateDataKey') (await retrying.generateDataKey(sampleContext, never)).key[Symbol.dispose]();
      if (call === 'wrap') await retrying.wrap(key, sampleContext, never);
      if (call === 'unwrap') (await retrying.unwrap(made.wrapped, sampleContext, never))[Symbol.dispose]();
      expect(failures).toEqual([]);
    },
  );

  it('gives up at the bound, with the last failure', async () => {
    const failures = [1, 2, 3, 4].map((attempt) => new KeyServiceUnavailable(`away ${attempt}`));
    const retrying = withKeyRetry(failingFirst(await inner, failures), { attemptsMax: 3, baseMs: 1 });
    await expect(retrying.generateDataKey(sampleContext, never)).rejects.toThrow('away 3');
    expect(failures).toHaveLength(1);
  });

  it('never asks again after a no', async () => {
    const refusal = new KeyRefused('disabled');
    const failures = [refusal, away()];
    using key = DataKey.generate();
    await expect(
      withKeyRetry(failingFirst(await inner, failures), { baseMs: 1 }).wrap(key, sampleContext, never),
    ).rejects.toBe(refusal);
    expect(failures).toHaveLength(1);
  });

  it('stops waiting when cancelled, with the reason', async () => {
    const stop = new AbortController();
    const reason = new Error('stopped');
    const waiting = withKeyRetry(failingFirst(await inner, [away(), away()]), { baseMs: 1e9, capMs: 1e9 });
    const asked = waiting.generateDataKey(sampleContext, stop.signal);
    setTimeout(() => stop.abort(reason), 20);
    await expect(asked).rejects.toBe(reason);
  });
});
