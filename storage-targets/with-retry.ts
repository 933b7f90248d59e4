import { type Clock, systemClock } from './clock.ts';
import { Conflict, ObjectExists, ObjectNotFound, StoreUnavailable, Throttled } from './errors.ts';
import type { ListedObject, ListOptions, PutOptions, StorageTarget } from './storage-target.ts';

export interface RetryOptions {
  /** Tries of one request, the first included. */
  readonly attemptsMax?: number;
  /** No try begins later than this after the first one began. */
  readonly deadlineMs?: number;
  readonly clock?: Clock;
  /** In [0, 1). */
  readonly random?: () => number;
}

const attemptsMaxDefault = 8;
const deadlineMsDefault = 15 * 60 * 1000;
const backoffMsFirst = 200;
const backoffMsMax = 20_000;
/** A pause is never shorter than this part of the longest: with all of it left to chance, one run in five did not outlast five seconds. */
const backoffPartMin = 0.25;
const retryAfterMsMax = 60_000;

/**
 * Tries again what may pass (Throttled, StoreUnavailable, Conflict) after exponential pauses with jitter, and settles
 * puts whose answer was lost. Everything else, and cancellation, passes through untouched.
 */
export function withRetry(target: StorageTarget, options: RetryOptions = {}): StorageTarget {
  const policy: Policy = {
    attemptsMax: options.attemptsMax ?? attemptsMaxDefault,
    deadlineMs: options.deadlineMs ?? deadlineMsDefault,
    clock: options.clock ?? systemClock,
    random: options.random ?? Math.random,
  };
  return {
    description: target.description,
    putIfAbsent: (name, bytes, putOptions, signal) => putOnce(target, policy, name, bytes, putOptions, signal),
    get: (name, range, signal, options) => retried(policy, signal, () => target.get(name, range, signal, options)),
    head: (name, signal) => retried(policy, signal, () => target.head(name, signal)),
    list: (prefix, listOptions, signal) => listOnwards(target, policy, prefix, listOptions, signal),
    delete: (names, signal) => retried(policy, signal, () => target.delete(names, signal)),
    extendRetention: (name, until, signal) =>
      retried(policy, signal, () => target.extendRetention(name, until, signal)),
    now: (signal) => retried(policy, signal, () => target.now(signal)),
    [Symbol.asyncDispose]: () => target[Symbol.asyncDispose](),
  };
}

type Policy = Required<RetryOptions>;

/**
 * After a lost answer, *exists* may be our own success: the object is read back, and the same bytes mean that it was.
 * Callers make their bytes unique (entries carry a nonce, sealed segments a salt), so another writer's never match.
 */
async function putOnce(
  target: StorageTarget,
  policy: Policy,
  name: string,
  bytes: Uint8Array,
  options: PutOptions,
  signal: AbortSignal,
): Promise<void> {
  let answerLost = false;
  await retried(policy, signal, async () => {
    try {
      await target.putIfAbsent(name, bytes, options, signal);
    } catch (error) {
      if (error instanceof StoreUnavailable) answerLost = true;
      const ours = error instanceof ObjectExists && answerLost && (await holds(target, name, bytes, signal));
      if (!ours) throw error;
    }
  });
}

async function holds(target: StorageTarget, name: string, bytes: Uint8Array, signal: AbortSignal): Promise<boolean> {
  try {
    return Buffer.compare(await target.get(name, null, signal), bytes) === 0;
  } catch (error) {
    if (error instanceof ObjectNotFound) return false;
    throw error;
  }
}

/** A listing that breaks goes on after the last name it gave. */
async function* listOnwards(
  target: StorageTarget,
  policy: Policy,
  prefix: string,
  options: ListOptions,
  signal: AbortSignal,
): AsyncGenerator<ListedObject> {
  let left = options;
  let tries = newTries(policy);
  for (;;) {
    try {
      for await (const object of target.list(prefix, left, signal)) {
        left = remaining(left, object.name);
        tries = newTries(policy);
        yield object;
      }
      return;
    } catch (error) {
      await pauseOrThrow(tries, error, signal);
    }
  }
}

function remaining(options: ListOptions, startAfter: string): ListOptions {
  return options.limit === undefined ? { startAfter } : { startAfter, limit: options.limit - 1 };
}

async function retried<T>(policy: Policy, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  const tries = newTries(policy);
  for (;;) {
    try {
      return await work();
    } catch (error) {
      await pauseOrThrow(tries, error, signal);
    }
  }
}

interface Tries {
  readonly policy: Policy;
  readonly beganMs: number;
  failed: number;
}

function newTries(policy: Policy): Tries {
  return { policy, beganMs: policy.clock.now(), failed: 0 };
}

/** Returns when the next try is due; throws `error` when there is to be none. */
async function pauseOrThrow(tries: Tries, error: unknown, signal: AbortSignal): Promise<void> {
  const { policy } = tries;
  if (signal.aborted || !mayPass(error) || ++tries.failed >= policy.attemptsMax) throw error;
  const ms = pauseMs(tries.failed, error, policy.random);
  if (policy.clock.now() + ms - tries.beganMs > policy.deadlineMs) throw error;
  await policy.clock.sleep(ms, signal);
}

function mayPass(error: unknown): boolean {
  return error instanceof Throttled || error instanceof StoreUnavailable || error instanceof Conflict;
}

function pauseMs(failed: number, error: unknown, random: () => number): number {
  const ceiling = Math.min(backoffMsMax, backoffMsFirst * 2 ** (failed - 1));
  const asked = error instanceof Throttled ? Math.min(error.retryAfterMs ?? 0, retryAfterMsMax) : 0;
  return Math.max(asked, (backoffPartMin + (1 - backoffPartMin) * random()) * ceiling);
}
