import { CommanderError } from 'commander';
import type { Colours } from './output.ts';
import { codeOf, type ExitCode, exitCodes, remedyFor } from './remedy.ts';

const causesShownMax = 5;

/** A thrown value as the operator gets to see it. */
export interface Failure {
  /** What was thrown. */
  readonly error: unknown;
  readonly exitCode: ExitCode;
  /** For `--json`. */
  readonly document: { readonly error: FailureDocument };
  readonly lines: (colours: Colours) => readonly string[];
}

interface FailureDocument {
  readonly code: string;
  readonly message: string;
  readonly hint: string | null;
  /** The same again may succeed without anybody doing something first. */
  readonly retry: boolean;
  readonly exitCode: ExitCode;
}

/**
 * A named error gets its message and what to do about it. A stack trace is for a bug, that is for whatever has no name,
 * and for those who ask (`options.stack`).
 */
export function describeFailure(error: unknown, signal: AbortSignal, options: { readonly stack: boolean }): Failure {
  const { first, then } = inOrder(error);
  const thrown = causeOfAbort(first, signal);
  const document = thrown instanceof CommanderError ? usageError(thrown) : namedError(thrown);
  const stack = options.stack || isBug(thrown) ? stackOf(thrown) : [];
  return {
    error: thrown,
    exitCode: document.exitCode,
    document: { error: document },
    lines: ({ red, bold, dim }) => [
      `${red(bold('failkit:'))} ${document.message}`,
      ...then.map((after) => `  ${bold('and then:')} ${after instanceof Error ? messageOf(after) : String(after)}`),
      ...(document.hint === null ? [] : [`  ${bold('what to do:')} ${document.hint}`]),
      ...stack.map((line) => dim(line)),
    ],
  };
}

/** What failed, and what failed while it was cleaned up after: the first is the news. */
function inOrder(error: unknown): { readonly first: unknown; readonly then: readonly unknown[] } {
  const then: unknown[] = [];
  let first = error;
  for (; first instanceof SuppressedError; first = first.suppressed) then.unshift(first.error);
  return { first, then };
}

/** Node's own functions wrap the reason of an abort in an AbortError; the operator pressed Ctrl-C, and that is the news. */
function causeOfAbort(error: unknown, signal: AbortSignal): unknown {
  return signal.aborted && error instanceof Error && error.name === 'AbortError' ? signal.reason : error;
}

function usageError(error: CommanderError): FailureDocument {
  // Help that is shown because the command was left out has been printed already.
  const message = error.code === 'commander.help' ? 'a command is missing' : error.message.replace(/^error: /, '');
  return { code: 'USAGE', message, hint: 'see failkit --help', retry: false, exitCode: exitCodes.usage };
}

function namedError(error: unknown): FailureDocument {
  const remedy = remedyFor(error);
  return {
    code: codeOf(error) ?? 'UNEXPECTED',
    message: error instanceof Error ? messageOf(error) : `something was thrown that is no error: ${String(error)}`,
    hint: remedy?.hint ?? null,
    retry: remedy?.action === 'retry',
    exitCode: remedy?.exitCode ?? exitCodes.unexpected,
  };
}

function messageOf(error: Error): string {
  if (!(error instanceof AggregateError)) return error.message;
  const parts = error.errors.map((part: unknown) => (part instanceof Error ? part.message : String(part)));
  return [error.message, ...parts].filter((part) => part !== '').join('\n  ');
}

/** Errors of ours and of the system carry a code. `ERR_…` is Node's for a call that should not have been made. */
function isBug(error: unknown): boolean {
  if (error instanceof CommanderError) return false;
  const code = codeOf(error);
  return code === null || code.startsWith('ERR_') || remedyFor(error)?.exitCode === exitCodes.unexpected;
}

function stackOf(error: unknown, depth = 0): readonly string[] {
  if (!(error instanceof Error) || depth > causesShownMax) return [];
  const own = (error.stack ?? '').split('\n').filter((line) => /^\s+at /.test(line));
  if (error.cause === undefined) return own;
  const cause = error.cause instanceof Error ? `${error.cause.name}: ${error.cause.message}` : String(error.cause);
  return [...own, `  caused by ${cause}`, ...stackOf(error.cause, depth + 1)];
}
