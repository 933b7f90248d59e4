import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { Socket } from 'node:net';

/** As long as libvirt may take, and as much as it may say: both for one question. */
export interface AnswerLimits {
  readonly timeoutMs: number;
  readonly charsMax: number;
}

/** What stays as it is when readline takes it for typed. */
const typeable = /^[ -~]*$/;

/**
 * One virsh that stays, for questions: a process of its own for each takes twenty times as long as the answer, and over SSH another login.
 * It knows no exit codes. What it prints is believed where it complains of nothing; anything else is doubt, which a process of its own has
 * to settle.
 */
export class VirshShell implements Disposable {
  readonly #child: ChildProcess;
  readonly #limits: AnswerLimits;
  readonly #mark = `=failkit-${randomBytes(8).toString('hex')}`;
  #number = 0;
  #stdout = '';
  #stderr = '';
  #isOver = false;
  /** To look whether the answer is whole, while one is waited for. */
  #look: (() => void) | null = null;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(uri: string, limits: AnswerLimits) {
    this.#limits = limits;
    const virsh = [
      'LC_ALL=C',
      'TERM=dumb',
      'INPUTRC=/dev/null',
      ...noHistory(uri),
      'virsh',
      '--quiet',
      '--connect',
      uri,
    ];
    // A session of its own: what interrupts us at the terminal is not for it.
    this.#child = spawn('env', virsh, { stdio: 'pipe', detached: true });
    const { stdin, stdout, stderr } = this.#child;
    this.#child.on('error', () => this.#end());
    this.#child.on('exit', () => this.#end());
    stdin?.on('error', () => this.#end());
    stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.#stdout += text;
      this.#look?.();
    });
    stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr += text;
      this.#look?.();
    });
    // Between two questions it keeps nobody from ending.
    this.#child.unref();
    // Without descriptors there are none.
    for (const stream of this.#child.stdio ?? []) if (stream instanceof Socket) stream.unref();
  }

  /** Null: in doubt. Throws `late()` when no answer came in time, and the reason of the signal. */
  async ask(words: readonly string[], signal: AbortSignal, late: () => Error): Promise<string | null> {
    if (!words.every((word) => typeable.test(word))) return null;
    const answer = this.#turn.then(() => this.#askNow(words, signal, late));
    this.#turn = answer.catch(() => undefined);
    return await answer;
  }

  [Symbol.dispose](): void {
    this.#end();
  }

  /** With the ssh that it may have started. One that may not be killed ends by itself when it is asked nothing more. */
  #end(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#child.stdin?.destroy();
    killSession(this.#child);
    this.#look?.();
  }

  async #askNow(words: readonly string[], signal: AbortSignal, late: () => Error): Promise<string | null> {
    signal.throwIfAborted();
    if (this.#isOver) return null;
    const number = ++this.#number;
    const mark = (which: string): string => `${this.#mark}-${number}-${which}`;
    const [begin, end, last] = [mark('begin'), mark('end'), mark('last')];
    [this.#stdout, this.#stderr] = ['', ''];
    const { promise, resolve, reject } = Promise.withResolvers<string | null>();
    this.#look = () => {
      const isHeard = this.#stderr.includes(last);
      if (isHeard && !this.#stderr.includes(end)) resolve(null);
      else if (isHeard && this.#stdout.includes(end)) resolve(answerOf(this.#stdout, this.#stderr, begin, end));
      else if (this.#isOver) resolve(null);
      // A virsh that is too old for it.
      else if (this.#stderr.includes('option --err')) this.#end();
      else if (this.#stdout.length + this.#stderr.length > this.#limits.charsMax) this.#end();
    };
    const giveUp = (): void => {
      reject(signal.aborted ? signal.reason : late());
      this.#end();
    };
    const timer = setTimeout(giveUp, this.#limits.timeoutMs);
    signal.addEventListener('abort', giveUp);
    // readline repeats the line, where quotes make the marks look different from what is printed.
    const echo = (printed: string): string => `"="${printed.slice(1)}`;
    const question = words.map((word, i) => (i === 0 ? word : quoted(word))).join(' ');
    const line = `echo ${echo(begin)}; ${question}; echo ${echo(end)}; echo --err ${echo(end)}`;
    // Of a line that it can't parse virsh does nothing at all: the second one tells that it was read.
    this.#child.stdin?.write(`${line}\necho --err ${echo(last)}\n`);
    try {
      return await promise;
    } finally {
      this.#look = null;
      clearTimeout(timer);
      signal.removeEventListener('abort', giveUp);
    }
  }
}

/** When it ends in order, it writes what it was asked into its user's history. A libvirt of the user's own it may have to start, with his folders. */
function noHistory(uri: string): readonly string[] {
  return uri.includes('/session') ? [] : ['XDG_CACHE_HOME=/dev/null'];
}

function killSession({ pid }: ChildProcess): void {
  try {
    if (pid !== undefined) process.kill(-pid, 'SIGKILL');
  } catch {
    // It has ended, or is another user's.
  }
}

/** A word of virsh's own command line. */
export function quoted(word: string): string {
  return `"${word.replaceAll(/(["\\])/g, '\\$1')}"`;
}

/** Of the error channel nothing but the mark, which `echo` calls an error as well. */
function answerOf(stdout: string, stderr: string, begin: string, end: string): string | null {
  const complaint = stderr.slice(0, stderr.indexOf(end)).replace('error: ', '').trim();
  const from = stdout.indexOf(begin);
  const text = stdout.slice(from + begin.length, stdout.indexOf(end));
  return complaint === '' && from >= 0 && text.trim() !== '' ? text : null;
}
