export interface Tally {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: readonly Skip[];
  /** Of the passed ones, those that met no real server, but a stub of what a vendor documents. */
  readonly stubbed: readonly string[];
}
export interface Skip {
  readonly name: string;
  /** What the machine lacks: `needs …`. */
  readonly reason: string;
}

export const emptyTally: Tally = { passed: 0, failed: 0, skipped: [], stubbed: [] };

/** What a test's name says when no peer enforces what it is about. */
export const stubWords = 'stub of the documented answers';

export function sum(tallies: readonly Tally[]): Tally {
  return {
    passed: tallies.reduce((total, tally) => total + tally.passed, 0),
    failed: tallies.reduce((total, tally) => total + tally.failed, 0),
    skipped: tallies.flatMap((tally) => tally.skipped),
    stubbed: tallies.flatMap((tally) => tally.stubbed),
  };
}

/** A check that has no tests of its own (types, lint, …) counts as one. */
export function tallyOfCheck(exitCode: number): Tally {
  return exitCode === 0 ? { ...emptyTally, passed: 1 } : { ...emptyTally, failed: 1 };
}

/** A runner that fails without naming a failed test (a crash, a broken teardown, a lost report) is one failure, never none. */
export function withExitCode(tally: Tally, exitCode: number): Tally {
  return exitCode !== 0 && tally.failed === 0 ? { ...tally, failed: 1 } : tally;
}

/** What Python's unittest prints with `-v` on standard error. */
export function tallyOfUnittest(output: string): Tally {
  const ran = Number(/^Ran (\d+) tests?/m.exec(output)?.[1] ?? 0);
  const verdict = /^(?:OK|FAILED|NO TESTS RAN).*$/m.exec(output)?.[0] ?? '';
  const failed = countIn(verdict, 'failures') + countIn(verdict, 'errors') + countIn(verdict, 'unexpected successes');
  const skipped = [...output.matchAll(/^(.+?) \.\.\. skipped '(.*)'$/gm)].map(([, name = '', reason = '']) => ({
    name,
    reason,
  }));
  return { ...emptyTally, passed: Math.max(0, ran - failed - countIn(verdict, 'skipped')), failed, skipped };
}

function countIn(verdict: string, word: string): number {
  return Number(new RegExp(`(?<![a-z] )${word}=(\\d+)`).exec(verdict)?.[1] ?? 0);
}

/** Before the last line, by the suites that hold them. */
export function stubLines({ stubbed }: Tally): readonly string[] {
  if (stubbed.length === 0) return [];
  const suites = Map.groupBy(stubbed, (name) => name.slice(0, name.indexOf(stubWords)).replace(/[ (]+$/, ''));
  const lines = [...suites].map(([suite, names]) => `stubbed: ${suite}: ${names.length}`);
  return [...lines, `of those that passed, ${stubbed.length} met no real server, but a ${stubWords}`];
}

export function lastLine(tally: Tally): string {
  return `${tally.passed} passed, ${tally.failed} failed, ${tally.skipped.length} skipped`;
}
