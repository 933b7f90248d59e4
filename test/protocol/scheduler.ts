import type { MemoryGate, MemoryOperation, MemoryOutcome } from '../fakes/memory-target.ts';
import type { Random } from '../random.ts';

/**
 * Runs actors one storage operation at a time, in an order that the seed decides. An actor may stop for ever (a crash), for
 * any time (a pause; one that wakes after others took over is a zombie), and its operations may be lost, answered or not.
 */

const bursts = [1, 1, 2, 5, 20];
const pauseStepsMax = 300;
const crashProbability = 0.006;
const pauseProbability = 0.02;
const lateProbability = 0.03;
const stepsMax = 60_000;

interface Waiting {
  readonly operation: MemoryOperation;
  readonly resume: (outcome: MemoryOutcome) => void;
}

export interface Actor {
  readonly name: string;
  readonly gate: MemoryGate;
}

interface Running extends Actor {
  readonly waiting: Waiting[];
  readonly onCrash: () => void;
  asleepUntil: number;
}

export class Scheduler {
  readonly #random: Random;
  readonly #running = new Set<Running>();
  readonly #late: (() => void)[] = [];
  #step = 0;
  #stopped = false;

  constructor(random: Random) {
    this.#random = random;
  }

  get steps(): number {
    return this.#step;
  }

  /** `life` must not throw. */
  spawn(name: string, life: (actor: Actor) => Promise<void>, onCrash: () => void = () => undefined): void {
    const waiting: Waiting[] = [];
    const gate: MemoryGate = (operation) => new Promise((resume) => waiting.push({ operation, resume }));
    const actor: Running = { name, gate, waiting, onCrash, asleepUntil: 0 };
    this.#running.add(actor);
    void life(actor).finally(() => this.#running.delete(actor));
  }

  stop(): void {
    this.#stopped = true;
  }

  /** Until every actor has ended or crashed. */
  async run(): Promise<void> {
    for (;;) {
      await settled();
      const actor = this.#next();
      if (actor === null || this.#stopped) return;
      if (this.#step > stepsMax) throw new Error(`the actors have not ended after ${stepsMax} steps`);
      await this.#let(actor);
    }
  }

  #next(): Running | null {
    const waiting = [...this.#running].filter((actor) => actor.waiting.length > 0);
    if (waiting.length === 0) return null;
    const awake = waiting.filter((actor) => actor.asleepUntil <= this.#step);
    return this.#random.pick(awake.length > 0 ? awake : waiting);
  }

  async #let(actor: Running): Promise<void> {
    if (this.#random.chance(crashProbability)) {
      this.#step++;
      this.#running.delete(actor);
      actor.onCrash();
      return;
    }
    actor.asleepUntil = this.#random.chance(pauseProbability)
      ? this.#step + 1 + this.#random.below(pauseStepsMax)
      : this.#step;
    const burst = this.#random.pick(bursts);
    for (let i = 0; i < burst && actor.waiting.length > 0 && !this.#stopped; i++) {
      this.#step++;
      const [next] = actor.waiting.splice(this.#random.below(actor.waiting.length), 1);
      next?.resume(anyOutcome(next.operation, this.#random, (carryOut) => this.#late.push(carryOut)));
      await settled();
      this.#carryOutLate();
    }
  }

  /** A request that was given up may still be under way in the network. */
  #carryOutLate(): void {
    if (this.#late.length === 0 || !this.#random.chance(lateProbability)) return;
    const [carryOut] = this.#late.splice(this.#random.below(this.#late.length), 1);
    carryOut?.();
  }
}

/** Everything that could go on without another storage operation has gone on. */
function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** What becomes of a request, by chance; `late` keeps what is to be carried out when nobody waits for it any more. */
export function anyOutcome(
  { kind }: MemoryOperation,
  random: Random,
  late: (carryOut: () => void | Promise<void>) => void,
): MemoryOutcome {
  const fate = random.next();
  if (kind !== 'put' && kind !== 'delete') return { kind: fate < 0.003 ? 'lost' : 'done' };
  if (fate < 0.01) return { kind: 'lost' };
  if (fate < 0.03) return { kind: 'unanswered' };
  if (fate < 0.05) return { kind: 'repeated' };
  if (fate < 0.065) return { kind: 'late', later: late };
  return { kind: 'done' };
}
