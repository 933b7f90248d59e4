import { setTimeout as sleep } from 'node:timers/promises';
import { KeyServiceUnavailable } from './errors.ts';
import type { KeyProvider } from './key-provider.ts';

const keyAttemptsMaxDefault = 4;
const keyRetryBaseMsDefault = 250;
const keyRetryCapMsDefault = 5_000;

export interface KeyRetryOptions {
  readonly attemptsMax?: number;
  readonly baseMs?: number;
  readonly capMs?: number;
}

/**
 * Tries again, with full jitter and a bound, what failed with KeyServiceUnavailable; nothing else is tried again.
 * The last failure passes through unchanged.
 */
export function withKeyRetry(inner: KeyProvider, options: KeyRetryOptions = {}): KeyProvider {
  return {
    provider: inner.provider,
    keyId: inner.keyId,
    generateDataKey: (context, signal) => retried(() => inner.generateDataKey(context, signal), options, signal),
    wrap: (key, context, signal) => retried(() => inner.wrap(key, context, signal), options, signal),
    unwrap: (wrapped, context, signal) => retried(() => inner.unwrap(wrapped, context, signal), options, signal),
  };
}

async function retried<T>(attempt: () => Promise<T>, options: KeyRetryOptions, signal: AbortSignal): Promise<T> {
  const { attemptsMax = keyAttemptsMaxDefault, baseMs = keyRetryBaseMsDefault, capMs = keyRetryCapMsDefault } = options;
  for (let attempts = 1; ; attempts++) {
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof KeyServiceUnavailable) || attempts >= attemptsMax) throw error;
    }
    await pause(Math.random() * Math.min(capMs, baseMs * 2 ** (attempts - 1)), signal);
  }
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  try {
    await sleep(ms, undefined, { signal });
  } catch {
    // Timers reject with their own AbortError; callers were promised the signal's reason.
    throw signal.reason;
  }
}
