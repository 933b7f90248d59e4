import { setTimeout as sleep } from 'node:timers/promises';
import { StoreUnavailable } from '../../storage-targets/errors.ts';
import type { StorageTarget } from '../../storage-targets/storage-target.ts';
import type { MemoryGate, MemoryOperation } from '../fakes/memory-target.ts';
import type { Random } from '../random.ts';
import { type Actor, anyOutcome } from './scheduler.ts';

/** Actors that really run at one time, against a real store: the order is the store's, and no seed brings it back. */

/** Where the replica is, and where its copy. */
export interface RealPlace {
  readonly store: StorageTarget;
  readonly copy: StorageTarget;
  readonly objectLock: boolean;
}

const crashProbability = 0.006;
const pauseProbability = 0.05;
const pauseMsMax = 60;
const lateMsMax = 100;
const startMsMax = 500;

export class FreeRunning {
  readonly #random: Random;
  readonly #lives = new Set<Promise<void>>();
  #stopped = false;
  steps = 0;

  constructor(random: Random) {
    this.#random = random;
  }

  /** `life` must not throw. */
  spawn(name: string, life: (actor: Actor) => Promise<void>, onCrash: () => void = () => undefined): void {
    const crash = Promise.withResolvers<void>();
    const gate: MemoryGate = async (operation) => {
      this.steps++;
      if (this.#stopped || this.#random.chance(crashProbability)) {
        if (!this.#stopped) onCrash();
        crash.resolve();
        return await new Promise(() => undefined);
      }
      if (this.#random.chance(pauseProbability)) await sleep(this.#random.below(pauseMsMax));
      return anyOutcome(operation, this.#random, (carryOut) => this.#hold(this.#late(carryOut)));
    };
    this.#hold(Promise.race([this.#begin({ name, gate }, life), crash.promise]));
  }

  stop(): void {
    this.#stopped = true;
  }

  /** Until every actor has ended or crashed, and what was late has happened. */
  async run(): Promise<void> {
    while (this.#lives.size > 0) await Promise.race(this.#lives);
  }

  async #begin(actor: Actor, life: (actor: Actor) => Promise<void>): Promise<void> {
    // Who comes before there is anything to read or prune goes again.
    await sleep(this.#random.below(startMsMax));
    await life(actor);
  }

  #hold(life: Promise<void>): void {
    const held = life.finally(() => this.#lives.delete(held));
    this.#lives.add(held);
  }

  async #late(carryOut: () => void | Promise<void>): Promise<void> {
    await sleep(this.#random.below(lateMsMax));
    await carryOut();
  }
}

/** A real target whose operations an actor's gate lets pass, or breaks. */
export function gated(target: StorageTarget, gate: MemoryGate): StorageTarget {
  const changing = async (operation: MemoryOperation, work: () => Promise<void>): Promise<void> => {
    const outcome = await gate(operation);
    const quietly = () => work().catch(() => undefined);
    if (outcome.kind === 'late') outcome.later(quietly);
    else if (outcome.kind === 'unanswered') await quietly();
    else if (outcome.kind !== 'lost') {
      await work();
      if (outcome.kind === 'repeated') await work();
      return;
    }
    throw new StoreUnavailable(`${target.description}: no answer`);
  };
  const reading = async (operation: MemoryOperation): Promise<void> => {
    if ((await gate(operation)).kind !== 'done') throw new StoreUnavailable(`${target.description}: no answer`);
  };
  return {
    description: target.description,
    putIfAbsent: (name, bytes, options, signal) => {
      const copy = bytes.slice();
      return changing({ kind: 'put', name }, () => target.putIfAbsent(name, copy, options, signal));
    },
    get: async (name, range, signal, options) => {
      await reading({ kind: 'get', name });
      return await target.get(name, range, signal, options);
    },
    head: async (name, signal) => {
      await reading({ kind: 'head', name });
      return await target.head(name, signal);
    },
    async *list(prefix, options, signal) {
      await reading({ kind: 'list', name: prefix });
      yield* target.list(prefix, options, signal);
    },
    delete: (names, signal) => changing({ kind: 'delete', name: names.join(' ') }, () => target.delete(names, signal)),
    extendRetention: async (name, until, signal) => {
      await reading({ kind: 'extendRetention', name });
      await target.extendRetention(name, until, signal);
    },
    now: async (signal) => {
      await reading({ kind: 'now', name: '' });
      return await target.now(signal);
    },
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}
