import { SourceUnreadable } from '../../hypervisors/errors.ts';
import type { MemoryGate, MemoryOperation, MemoryOutcome } from '../fakes/memory-target.ts';
import type { SourceGate } from '../fakes/model-disk.ts';
import type { Fault } from './history.ts';

const done: MemoryOutcome = { kind: 'done' };

/** The calls of one run to its store and its source, and the one that goes wrong. */
export class RunCalls {
  readonly operations: MemoryOperation[] = [];
  readonly stopped = new Error('the run was told to stop');
  readonly #abort = new AbortController();
  readonly #fault: Fault | null;
  readonly #onKill: () => void;
  #calls = 0;
  hasFailed = false;
  /** Set once the run has ended: nothing of it may go on. */
  isOver = false;
  callsAfterEnd = 0;

  constructor(fault: Fault | null, onKill: () => void) {
    this.#fault = fault;
    this.#onKill = onKill;
  }

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  readonly store: MemoryGate = async (operation) => {
    this.#count(operation.kind === 'put');
    this.operations.push(operation);
    const how = this.#due('store');
    if (how === 'lost' || how === 'unanswered') return { kind: how };
    return done;
  };

  readonly source: SourceGate = async (_call, signal) => {
    this.#count(false);
    if (this.#due('source') === 'vanish') throw new SourceUnreadable('the disk vanished');
    signal.throwIfAborted();
  };

  #count(isPut: boolean): void {
    if (isPut || this.#fault?.of !== 'puts') this.#calls++;
    if (this.isOver) this.callsAfterEnd++;
  }

  #due(where: 'store' | 'source'): Fault['how'] | null {
    const fault = this.#fault;
    if (fault === null || this.hasFailed || this.#calls <= fault.call) return null;
    const only = { lost: 'store', unanswered: 'store', vanish: 'source', cancel: where, kill: where };
    if (only[fault.how] !== where) return null;
    this.hasFailed = true;
    if (fault.how === 'kill') this.#onKill();
    if (fault.how === 'kill' || fault.how === 'cancel') this.#abort.abort(this.stopped);
    return fault.how;
  }
}
