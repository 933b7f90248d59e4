import { describeFailure } from '../failure.ts';
import { formatDuration } from '../quantities.ts';
import { type ExitCode, exitCodes } from '../remedy.ts';

/** What one check came to. */
export interface Finding {
  readonly check: string;
  readonly outcome: 'ok' | 'warning' | 'failed' | 'skipped';
  /** A skipped one says what it needs. */
  readonly what: string;
  /** What to do about it, in plain words. */
  readonly fix: string | null;
  readonly code: string | null;
  /** What a command that meets this ends with; 0 unless it failed. */
  readonly exitCode: ExitCode;
}

/** What a check says when it throws nothing. */
export type Verdict = Pick<Finding, 'outcome' | 'what' | 'fix'>;

export interface Checked<T> {
  readonly verdict: Verdict;
  readonly value: T;
}

/** The remedy of an error whose message has it. */
export const asItSays = 'as the message says';
const checkLimitMs = 30_000;

export function good(what: string): Verdict {
  return { outcome: 'ok', what, fix: null };
}

export function doubtful(what: string, fix: string): Verdict {
  return { outcome: 'warning', what, fix };
}

/** `needs`: what has to be there first. */
export function skipped(check: string, needs: string): Finding {
  return { check, outcome: 'skipped', what: `needs ${needs}`, fix: null, code: null, exitCode: exitCodes.ok };
}

/** Yields the finding and returns what later checks build on: null where this one failed. `late`: what no answer in time counts as. */
export async function* attempt<T>(
  check: string,
  signal: AbortSignal,
  work: (signal: AbortSignal) => Checked<T> | Promise<Checked<T>>,
  late: ExitCode = exitCodes.store,
): AsyncGenerator<Finding, T | null> {
  signal.throwIfAborted();
  const limit = AbortSignal.timeout(checkLimitMs);
  try {
    const { verdict, value } = await work(AbortSignal.any([signal, limit]));
    yield { check, ...verdict, code: null, exitCode: exitCodes.ok };
    return value;
  } catch (error) {
    signal.throwIfAborted();
    yield limit.aborted ? tooLate(check, late) : failed(check, error, signal);
    return null;
  }
}

/** For a check that nothing builds on. */
export async function* attemptOnly(
  check: string,
  signal: AbortSignal,
  work: (signal: AbortSignal) => Verdict | Promise<Verdict>,
  late?: ExitCode,
): AsyncGenerator<Finding, void> {
  yield* attempt(check, signal, async (either) => ({ verdict: await work(either), value: null }), late);
}

function failed(check: string, error: unknown, signal: AbortSignal): Finding {
  const { message, hint, code, exitCode } = describeFailure(error, signal, { stack: false }).document.error;
  return { check, outcome: 'failed', what: message, fix: hint ?? asItSays, code, exitCode };
}

function tooLate(check: string, exitCode: ExitCode): Finding {
  const what = `there was no answer within ${formatDuration(checkLimitMs)}`;
  const fix = 'check the address, the network, the proxy and the firewall';
  return { check, outcome: 'failed', what, fix, code: null, exitCode };
}
