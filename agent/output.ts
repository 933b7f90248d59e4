import { stripVTControlCharacters } from 'node:util';
import picocolors from 'picocolors';
import type { Environment } from './config/environment.ts';

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
  /** How far it is: rewrites one line on a terminal; elsewhere a line every ten seconds at most. */
  progress(line: string): void;
  /** The command's answer: the lines, or with `--json` the document. Once, at the end. */
  answer(document: unknown, lines: readonly string[]): void;
  /** As `answer`, but the lines go to standard error. */
  failure(document: unknown, lines: (colours: Colours) => readonly string[]): void;
}

const progressEveryMs = 10_000;
const terminalColumns = 80;
/** Back to the first column, and clear the line. */
const rewind = '\r\x1b[2K';

export function createOutput(options: OutputOptions, now: () => number = () => performance.now()): Output {
  const { stdout, stderr, json } = options;
  let lineIsOpen = false;
  let lastProgressMs = Number.NEGATIVE_INFINITY;

  const say = (stream: TextStream, lines: readonly string[]) => {
    if (lineIsOpen) stderr.write(rewind);
    lineIsOpen = false;
    for (const line of lines) stream.write(`${line}\n`);
  };
  return {
    json,
    colours: coloursFor(stdout, options.environment),
    columns: stdout.isTTY === true ? (stdout.columns ?? terminalColumns) : null,
    note: (line) => say(stderr, [line]),
    progress: (line) => {
      if (stderr.isTTY === true) {
        stderr.write(rewind + cut(line, stderr.columns ?? terminalColumns));
        lineIsOpen = true;
      } else if (now() - lastProgressMs >= progressEveryMs) {
        lastProgressMs = now();
        say(stderr, [line]);
      }
    },
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

/** A line that wraps can't be rewritten. Colours are dropped, because a cut could leave one switched on. */
function cut(line: string, columns: number): string {
  return line.length < columns ? line : `${stripVTControlCharacters(line).slice(0, columns - 2)}…`;
}

function asJson(document: unknown): string {
  return JSON.stringify(document, null, 2);
}
