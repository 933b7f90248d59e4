import { createConnection, type Socket } from 'node:net';
import { QmpLost, QmpRefused, QmpUnreachable } from './kvm-errors.ts';

/** QEMU's monitor in its machine form. https://www.qemu.org/docs/master/interop/qmp-spec.html */

const connectTimeoutMs = 10_000;
/** QEMU answers from its main loop, which a slow storage may hold up. */
const answerTimeoutMs = 60_000;
const messageCharsMax = 16 * 1024 * 1024;
const eventsKeptMax = 1024;

export interface QmpEvent {
  readonly event: string;
  readonly data: Readonly<Record<string, unknown>>;
}

export type QmpCommand = readonly [execute: string, args: Readonly<Record<string, unknown>>];

interface Pending {
  readonly command: string;
  resolve(value: unknown): void;
  reject(error: Error): void;
}

interface Waiter {
  matches(event: QmpEvent): boolean;
  resolve(event: QmpEvent): void;
  reject(error: Error): void;
}

/** One connection to one QEMU. Commands are answered in any order; events are kept from the start, so that none is missed. */
export class QmpClient implements AsyncDisposable {
  readonly #where: string;
  readonly #socket: Socket;
  readonly #pending = new Map<number, Pending>();
  readonly #waiters = new Set<Waiter>();
  readonly #listeners = new Set<(event: QmpEvent) => void>();
  #events: QmpEvent[] = [];
  #lost: QmpLost | null = null;
  #lastId = 0;
  #text = '';
  #greeted: (() => void) | null = null;

  private constructor(where: string, socket: Socket) {
    this.#where = where;
    this.#socket = socket;
    socket.setEncoding('utf8');
    socket.on('data', (text: string) => this.#take(text));
    socket.on('error', (cause) => this.#lose('the connection broke', cause));
    socket.on('close', () => this.#lose('QEMU closed it: it ended, or another client took the monitor'));
  }

  /** Throws QmpUnreachable, or QmpLost where something else than QMP answers. */
  static async open(path: string, signal: AbortSignal): Promise<QmpClient> {
    signal.throwIfAborted();
    const socket = await connect(path, signal);
    const client = new QmpClient(`the monitor at ${path}`, socket);
    try {
      await client.#greeting(signal);
      await client.run('qmp_capabilities', {}, signal);
      return client;
    } catch (error) {
      await client[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Throws QmpRefused, QmpLost, or the signal's reason; in the last two cases it may have happened. */
  async run(
    execute: string,
    args: Readonly<Record<string, unknown>>,
    signal: AbortSignal,
    timeoutMs: number = answerTimeoutMs,
  ): Promise<unknown> {
    signal.throwIfAborted();
    if (this.#lost !== null) throw this.#lost;
    const id = ++this.#lastId;
    const answer = Promise.withResolvers<unknown>();
    this.#pending.set(id, { command: execute, ...answer });
    this.#socket.write(`${JSON.stringify({ execute, arguments: args, id })}\n`);
    try {
      return await bounded(answer.promise, signal, timeoutMs, () => this.#late(execute, timeoutMs));
    } finally {
      this.#pending.delete(id);
    }
  }

  /** One after the other, without waiting for the answers in between. Throws the first refusal when all are answered: the rest was tried. */
  async runAll(commands: readonly QmpCommand[], signal: AbortSignal): Promise<void> {
    const answers = await Promise.allSettled(commands.map(([execute, args]) => this.run(execute, args, signal)));
    for (const answer of answers) if (answer.status === 'rejected') throw answer.reason;
  }

  /** The first event that matches, of those kept or still to come; it is taken out. */
  async next(
    matches: (event: QmpEvent) => boolean,
    signal: AbortSignal,
    timeoutMs = answerTimeoutMs,
  ): Promise<QmpEvent> {
    const kept = this.#events.findIndex(matches);
    const [early] = kept < 0 ? [] : this.#events.splice(kept, 1);
    if (early !== undefined) return early;
    if (this.#lost !== null) throw this.#lost;
    const found = Promise.withResolvers<QmpEvent>();
    const waiter = { matches, ...found };
    this.#waiters.add(waiter);
    try {
      return await bounded(found.promise, signal, timeoutMs, () => this.#late('an event', timeoutMs));
    } finally {
      this.#waiters.delete(waiter);
    }
  }

  /** Hears every event from now on. */
  listen(listener: (event: QmpEvent) => void): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => this.#listeners.delete(listener) };
  }

  /** Why nothing can be asked any more; null while it can. */
  get lost(): QmpLost | null {
    return this.#lost;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#lose('it was closed here');
    this.#socket.destroy();
  }

  async #greeting(signal: AbortSignal): Promise<void> {
    const greeted = Promise.withResolvers<unknown>();
    this.#greeted = () => greeted.resolve(null);
    this.#pending.set(0, { command: 'the greeting', ...greeted });
    const late = () =>
      new QmpUnreachable(
        `${this.#where} does not greet: another program is connected to it, and it takes one at a time`,
      );
    await bounded(greeted.promise, signal, connectTimeoutMs, late);
    this.#pending.delete(0);
  }

  #late(what: string, timeoutMs: number): QmpLost {
    return new QmpLost(`${this.#where}: ${what}: no answer within ${timeoutMs / 1000} s`);
  }

  #take(text: string): void {
    this.#text += text;
    if (this.#text.length > messageCharsMax) {
      this.#lose(`a message of more than ${messageCharsMax} characters`);
      this.#socket.destroy();
      return;
    }
    const lines = this.#text.split('\n');
    this.#text = lines.pop() ?? '';
    for (const line of lines) if (line.trim() !== '') this.#message(line);
  }

  #message(line: string): void {
    const message = parseMessage(line);
    if (message === null) {
      this.#lose(`it does not speak QMP: ${line.slice(0, 80)}`);
      this.#socket.destroy();
    } else if ('QMP' in message) this.#greeted?.();
    else if (typeof message.event === 'string') this.#event({ event: message.event, data: objectOf(message.data) });
    else this.#answer(message);
  }

  #event(event: QmpEvent): void {
    for (const listener of this.#listeners) listener(event);
    for (const waiter of this.#waiters) {
      if (!waiter.matches(event)) continue;
      this.#waiters.delete(waiter);
      waiter.resolve(event);
      return;
    }
    this.#events = [...this.#events.slice(1 - eventsKeptMax), event];
  }

  #answer(message: Readonly<Record<string, unknown>>): void {
    const pending = this.#pending.get(Number(message.id));
    if (pending === undefined) return;
    if (!('error' in message)) {
      pending.resolve(message.return);
      return;
    }
    const { desc, class: qemuClass } = objectOf(message.error);
    pending.reject(new QmpRefused(`${this.#where} refused ${pending.command}: ${String(desc)}`, String(qemuClass)));
  }

  #lose(what: string, cause?: Error): void {
    if (this.#lost !== null) return;
    const lost = new QmpLost(`${this.#where}: ${what}`, cause === undefined ? {} : { cause });
    this.#lost = lost;
    for (const waiting of [...this.#pending.values(), ...this.#waiters]) waiting.reject(lost);
    this.#pending.clear();
    this.#waiters.clear();
  }
}

async function connect(path: string, signal: AbortSignal): Promise<Socket> {
  const socket = createConnection({ path });
  const connected = Promise.withResolvers<void>();
  socket.once('connect', connected.resolve);
  socket.once('error', connected.reject);
  try {
    await bounded(connected.promise, signal, connectTimeoutMs, () => new Error('no answer'));
    socket.off('error', connected.reject);
    return socket;
  } catch (cause) {
    socket.on('error', () => undefined);
    socket.destroy();
    signal.throwIfAborted();
    const why = cause instanceof Error && 'code' in cause ? String(cause.code) : String(cause);
    throw new QmpUnreachable(`nobody answers at the monitor ${path} (${why}): is the machine running?`, { cause });
  }
}

/** Settles with `work`, with the signal's reason, or with what `late` makes. */
async function bounded<T>(work: Promise<T>, signal: AbortSignal, timeoutMs: number, late: () => Error): Promise<T> {
  const stopped = Promise.withResolvers<never>();
  const onAbort = (): void => stopped.reject(signal.reason);
  const timer = setTimeout(() => stopped.reject(late()), timeoutMs);
  signal.addEventListener('abort', onAbort);
  // One of the two is always left behind.
  work.catch(() => undefined);
  stopped.promise.catch(() => undefined);
  try {
    return await Promise.race([work, stopped.promise]);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', onAbort);
  }
}

function parseMessage(line: string): Readonly<Record<string, unknown>> | null {
  try {
    const message: unknown = JSON.parse(line);
    return isObject(message) ? message : null;
  } catch {
    return null;
  }
}

function objectOf(value: unknown): Readonly<Record<string, unknown>> {
  return isObject(value) ? value : {};
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
