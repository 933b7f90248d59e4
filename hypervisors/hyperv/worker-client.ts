import type { Readable, Writable } from 'node:stream';
import * as z from 'zod';
import { untilAborted } from '../until-aborted.ts';
import { HypervAnswerInvalid, HypervRefused, HypervTimedOut, HypervUnreachable } from './hyperv-errors.ts';

/** One PowerShell on the host that stays: a line of JSON for each question, and one for each answer. */

const answerTimeoutMs = 120_000;
const answerCharsMax = 32 * 1024 * 1024;
const complaintCharsMax = 2000;

/** What a started worker is spoken to through. */
export interface WorkerStreams {
  readonly input: Writable;
  readonly output: Readable;
  readonly complaints: Readable;
  /** Ends it and what it holds open, whatever it is at. */
  kill(): void;
}

export type StartWorker = (signal: AbortSignal) => Promise<WorkerStreams>;

const answerSchema = z.discriminatedUnion('ok', [
  z.object({ id: z.number(), ok: z.literal(true), value: z.unknown() }),
  z.object({
    id: z.number(),
    ok: z.literal(false),
    error: z.object({
      kind: z.enum(['refused', 'not-found', 'failed']),
      message: z.string(),
      returnValue: z.number().nullable(),
      hresult: z.string().nullable(),
    }),
  }),
]);
type Answer = z.output<typeof answerSchema>;

/** A worker that nobody asks anything holds memory of the host for nothing. */
const idleMsMax = 10 * 60_000;

/**
 * Starts the worker when it is first needed, ends it when nobody asked for long, and starts another one after it had to be ended. Whoever
 * asks, machines and runs, is answered one at a time, in turn.
 */
export class WorkerClient implements AsyncDisposable {
  readonly where: string;
  readonly #start: StartWorker;
  readonly #idleMs: number;
  #worker: RunningWorker | null = null;
  #turn: Promise<unknown> = Promise.resolve();
  #idle: NodeJS.Timeout | undefined;
  #lastId = 0;

  constructor(where: string, start: StartWorker, idleMs = idleMsMax) {
    this.where = where;
    this.#start = start;
    this.#idleMs = idleMs;
  }

  /**
   * Throws HypervRefused; or HypervUnreachable, HypervTimedOut, HypervAnswerInvalid or the signal's reason, and then it may have happened.
   */
  async call<Value>(
    operation: string,
    args: Readonly<Record<string, unknown>>,
    schema: z.ZodType<Value>,
    signal: AbortSignal,
    timeoutMs = answerTimeoutMs,
  ): Promise<Value> {
    const asked = this.#turn.then(() => this.#ask(operation, args, signal, timeoutMs));
    this.#turn = asked.catch(() => undefined);
    // Whoever gives up need not wait for the question of somebody else.
    const answer = await untilAborted(asked, signal);
    if (!answer.ok) throw refusal(this.where, operation, answer.error);
    const parsed = schema.safeParse(answer.value);
    if (parsed.success) return parsed.data;
    throw new HypervAnswerInvalid(`${this.where}: its answer to ${operation} can't be understood`, {
      cause: parsed.error,
    });
  }

  async #ask(operation: string, args: object, signal: AbortSignal, timeoutMs: number): Promise<Answer> {
    signal.throwIfAborted();
    clearTimeout(this.#idle);
    if (this.#worker?.ended !== null) this.#worker = null;
    this.#worker ??= new RunningWorker(this.where, await this.#start(signal));
    const id = ++this.#lastId;
    const line = `${JSON.stringify({ id, op: operation, args })}\n`;
    try {
      return await this.#worker.ask(id, operation, line, signal, timeoutMs);
    } finally {
      this.#idle = setTimeout(() => this.#end(), this.#idleMs).unref();
    }
  }

  #end(): void {
    clearTimeout(this.#idle);
    this.#worker?.end();
    this.#worker = null;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#turn;
    this.#end();
  }
}

function refusal(where: string, operation: string, error: Extract<Answer, { ok: false }>['error']): HypervRefused {
  const { message, kind, returnValue, hresult } = error;
  const numbers = [
    ...(returnValue === null ? [] : [`${returnValue}${meaningOf(returnValue)}`]),
    ...(hresult === null ? [] : [hresult]),
  ];
  const told = [...(numbers.length === 0 ? [] : [`(${numbers.join(', ')})`]), message].join(' ');
  return new HypervRefused(`${where}: Hyper-V refused ${operation} ${told}`.trim(), { kind, returnValue, hresult });
}

/** The small ones are of methods that a standard defines. */
const returnValues: Readonly<Record<number, string>> = {
  1: 'not supported',
  2: 'failed',
  3: 'timed out',
  4: 'invalid parameter',
  5: 'not in this state',
  6: 'wrong type',
  32769: 'access denied',
  32770: 'not supported',
  32772: 'timed out',
  32773: 'invalid parameter',
  32774: 'in use',
  32775: 'not in this state',
  32776: 'wrong type',
  32777: 'unavailable',
  32778: 'out of memory',
  32779: 'file not found',
};

function meaningOf(returnValue: number): string {
  const meaning = returnValues[returnValue];
  return meaning === undefined ? '' : `, ${meaning}`;
}

interface Pending {
  readonly id: number;
  resolve(answer: Answer): void;
  reject(error: Error): void;
}

/** One worker, from its start to its end. */
class RunningWorker {
  readonly #where: string;
  readonly #streams: WorkerStreams;
  #pending: Pending | null = null;
  #lastAsked = 0;
  #text = '';
  #complaints = '';
  /** Why it can't be asked any more. */
  ended: Error | null = null;

  constructor(where: string, streams: WorkerStreams) {
    this.#where = where;
    this.#streams = streams;
    const { input, output, complaints } = streams;
    const broke = (cause: Error): void =>
      this.#lose(new HypervUnreachable(`${where}: the worker broke off`, { cause }));
    input.on('error', broke);
    output.setEncoding('utf8');
    output.on('data', (text: string) => this.#take(text));
    output.on('error', broke);
    output.on('close', () => this.#lose(new HypervUnreachable(`${where}: the worker ended${this.#lastWords()}`)));
    complaints.setEncoding('utf8');
    complaints.on('error', broke);
    complaints.on('data', (text: string) => {
      this.#complaints = (this.#complaints + text).slice(-complaintCharsMax);
    });
  }

  async ask(id: number, operation: string, line: string, signal: AbortSignal, timeoutMs: number): Promise<Answer> {
    if (this.ended !== null) throw this.ended;
    this.#lastAsked = id;
    const answered = Promise.withResolvers<Answer>();
    this.#pending = { id, ...answered };
    const abort = (): void => answered.reject(signal.reason);
    signal.addEventListener('abort', abort, { once: true });
    const timer = setTimeout(() => {
      const late = `${this.#where}: no answer to ${operation} in ${timeoutMs / 1000} s: it was ended, and what it was at may go on`;
      this.#lose(new HypervTimedOut(late));
    }, timeoutMs);
    this.#streams.input.write(line);
    try {
      return await answered.promise;
    } finally {
      clearTimeout(timer);
      signal.removeEventListener('abort', abort);
      this.#pending = null;
    }
  }

  /** It ends by itself once nobody asks any more, and is not waited for. */
  end(): void {
    this.ended ??= new HypervUnreachable(`${this.#where}: the connection is closed`);
    this.#streams.input.end();
    this.#streams.kill();
  }

  #take(text: string): void {
    this.#text += text;
    for (let end = this.#text.indexOf('\n'); end >= 0; end = this.#text.indexOf('\n')) {
      const line = this.#text.slice(0, end).trim();
      this.#text = this.#text.slice(end + 1);
      if (line !== '') this.#answer(line);
    }
    if (this.#text.length > answerCharsMax) this.#lose(this.#invalid(`more than ${answerCharsMax} characters`));
  }

  #answer(line: string): void {
    const parsed = answerSchema.safeParse(parseJson(line));
    if (!parsed.success) {
      this.#lose(this.#invalid('a line that is no answer'));
      return;
    }
    const { id } = parsed.data;
    if (id === this.#pending?.id) this.#pending.resolve(parsed.data);
    // The answer to what was given up meanwhile.
    else if (id > this.#lastAsked || id < 1) this.#lose(this.#invalid(`an answer to ${id}, which was not asked`));
  }

  #invalid(what: string): HypervAnswerInvalid {
    return new HypervAnswerInvalid(`${this.#where}: the worker wrote ${what}`);
  }

  /** PowerShell's complaints are shown, never understood. */
  #lastWords(): string {
    const words = this.#complaints.replace(/\s+/g, ' ').trim();
    return words === '' ? '' : `: ${words}`;
  }

  #lose(error: Error): void {
    if (this.ended !== null) return;
    this.ended = error;
    this.#streams.kill();
    this.#pending?.reject(error);
  }
}

function parseJson(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return null;
  }
}
