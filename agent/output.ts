import picocolors from 'picocolors';
import type { Environment } from './config/environment.ts';
import { progressLine, progressRows } from './progress/draw-progress.ts';
import type { Progress } from './progress/progress.ts';
import { wrapLineBelow } from './wrap-text.ts';

export type Colours = ReturnType<typeof picocolors.createColors>;

/** Where a command's words go; process.stdout and process.stderr are such streams. */
export interface TextStream {
  write(text: string): unknown;
  readonly isTTY?: boolean;
  readonly columns?: number;
}

export interface OutputOptions {
  readonly stdout: TextStream;
  readonly stderr: TextStream;
  readonly json: boolean;
  readonly environment: Environment;
}

/** The two readers of a command: a person at a terminal, and (`--json`) a program that wants one document. */
export interface Output {
  readonly json: boolean;
  /** For result lines, which go to standard output. Does nothing unless that is a terminal. */
  readonly colours: Colours;
  /** How many characters a result line has room for; null where that is no terminal. */
  readonly columns: number | null;
  /** One line for a person, at once, on standard error. */
  note(line: string): void;
  /** How far it is: rewritten in place on a terminal; elsewhere a line now and then, the longer it takes the rarer. */
  progress(progress: Progress): void;
  /** What a command that stays has to say before it ends: the lines, or with `--json` the document in one line. */
  announce(document: unknown, lines: readonly string[]): void;
  /** The command's answer: the lines, or with `--json` the document. Once, at the end. */
  answer(document: unknown, lines: readonly string[]): void;
  /** As `answer`, but the lines go to standard error. */
  failure(document: unknown, lines: (colours: Colours) => readonly string[]): void;
}

/** Nobody watches: a line after ten seconds, and then whenever the run is a tenth older, but every ten minutes at least. */
const quietMsMin = 10_000;
const quietMsMax = 600_000;
const quietShare = 0.1;
const terminalColumns = 80;
/** Back to the first column, and clear all from there. */
const rewind = '\r\x1b[J';
const upOneRow = '\x1b[1A';

export function createOutput(options: OutputOptions, now: () => number = () => performance.now()): Output {
  const { stdout, stderr, json } = options;
  const rewrites = stderr.isTTY === true && options.environment.TERM !== 'dumb';
  const progressColours = coloursFor(stderr, options.environment);
  let openRows = 0;
  let firstProgressMs: number | null = null;
  let nextLineMs = 0;

  const backToStart = (): string => {
    const back = openRows === 0 ? '' : upOneRow.repeat(openRows - 1) + rewind;
    openRows = 0;
    return back;
  };
  const say = (stream: TextStream, lines: readonly string[]) => {
    const back = backToStart();
    if (back !== '') stderr.write(back);
    const columns = columnsOf(stream);
    // One at a time: a line of ours may be several of a message.
    for (const line of lines.flatMap((each) => each.split('\n')))
      for (const fitting of wrapLineBelow(line, columns)) stream.write(`${fitting}\n`);
  };
  return {
    json,
    colours: coloursFor(stdout, options.environment),
    columns: columnsOf(stdout),
    note: (line) => say(stderr, [line]),
    progress: (progress) => {
      if (rewrites) {
        const rows = progressRows(progress, stderr.columns ?? terminalColumns, progressColours);
        stderr.write(backToStart() + rows.join('\n'));
        openRows = rows.length;
        return;
      }
      const nowMs = now();
      if (firstProgressMs === null) {
        firstProgressMs = nowMs;
        nextLineMs = nowMs + quietMsMin;
      }
      if (nowMs < nextLineMs) return;
      nextLineMs = nowMs + quietFor(nowMs - firstProgressMs);
      say(stderr, [progressLine(progress)]);
    },
    announce: (document, lines) => say(stdout, json ? [JSON.stringify(document)] : lines),
    answer: (document, lines) => say(stdout, json ? [asJson(document)] : lines),
    failure: (document, lines) => {
      say(stderr, lines(coloursFor(stderr, options.environment)));
      if (json) say(stdout, [asJson(document)]);
    },
  };
}

/** NO_COLOR (no-color.org): set to anything but the empty text. */
function coloursFor(stream: TextStream, environment: Environment): Colours {
  const unwanted = (environment.NO_COLOR ?? '') !== '' || environment.TERM === 'dumb';
  return picocolors.createColors(stream.isTTY === true && !unwanted);
}

function columnsOf({ isTTY, columns = terminalColumns }: TextStream): number | null {
  return isTTY === true ? columns : null;
}

function quietFor(elapsedMs: number): number {
  return Math.min(quietMsMax, Math.max(quietMsMin, elapsedMs * quietShare));
}

function asJson(document: unknown): string {
  return JSON.stringify(document, null, 2);
}
