import { describe, expect, test } from 'vitest';
import { emptyTally, lastLine, stubLines, sum, tallyOfCheck, tallyOfUnittest, withExitCode } from './tally.ts';

test('the last line sums all lanes', () => {
  const skip = { name: 'a', reason: 'needs b' };
  const total = sum([{ ...emptyTally, passed: 3, failed: 1, skipped: [skip] }, tallyOfCheck(0), tallyOfCheck(2)]);
  expect(lastLine(total)).toBe('4 passed, 2 failed, 1 skipped');
});

test('a runner that dies without a report is a failure', () => {
  expect(withExitCode(emptyTally, 1).failed).toBe(1);
  expect(withExitCode({ ...emptyTally, passed: 9 }, 137).failed).toBe(1);
  expect(withExitCode({ ...emptyTally, failed: 2 }, 1).failed).toBe(2);
});

test('what met only a stub is counted and listed apart', () => {
  const stubbed = [
    'a.test.ts > locks (stub of the documented answers) > keeps',
    'a.test.ts > locks (stub of the documented answers) > ends',
  ];
  expect(stubLines(sum([{ ...emptyTally, passed: 2, stubbed }, emptyTally]))).toEqual([
    'stubbed: a.test.ts > locks: 2',
    'of those that passed, 2 met no real server, but a stub of the documented answers',
  ]);
  expect(stubLines(emptyTally)).toEqual([]);
});

describe('what Python prints', () => {
  test('all passed', () => {
    expect(tallyOfUnittest('test_a (x.T) ... ok\n\nRan 1 test in 0.1s\n\nOK\n')).toEqual({ ...emptyTally, passed: 1 });
  });

  test('failures, errors and skips', () => {
    const output = [
      "test_a (x.T.test_a) ... skipped 'needs zstandard'",
      'Ran 9 tests in 0.1s',
      '',
      'FAILED (failures=1, errors=2, skipped=1, expected failures=1)',
    ].join('\n');
    expect(tallyOfUnittest(output)).toEqual({
      ...emptyTally,
      passed: 5,
      failed: 3,
      skipped: [{ name: 'test_a (x.T.test_a)', reason: 'needs zstandard' }],
    });
  });
});
