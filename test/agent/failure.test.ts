import { setTimeout as sleep } from 'node:timers/promises';
import picocolors from 'picocolors';
import { expect, it } from 'vitest';
import { describeFailure, type Failure } from '../../agent/failure.ts';
import { Interrupted } from '../../agent/interrupt.ts';
import { KeyRefused } from '../../crypto/errors.ts';
import { StoreUnavailable } from '../../storage-targets/errors.ts';

const never = new AbortController().signal;
const plain = picocolors.createColors(false);
const quiet = { stack: false };

function linesOf(failure: Failure): string {
  return failure.lines(plain).join('\n');
}

it('a named error shows its message and what to do, and no stack', () => {
  const failure = describeFailure(new KeyRefused('key abc is disabled'), never, quiet);
  expect(linesOf(failure)).toMatch(/^failkit: key abc is disabled\n {2}what to do: check the key's state/);
  expect(linesOf(failure)).not.toMatch(/\.ts:\d+/);
  expect(failure.document.error).toMatchObject({ code: 'KEY_REFUSED', exitCode: 5, retry: false });
});

it('a named error shows its stack and its causes to those who ask', () => {
  const error = new StoreUnavailable('no answer', { cause: new Error('socket hang up') });
  const failure = describeFailure(error, never, { stack: true });
  expect(linesOf(failure)).toMatch(/failure\.test\.ts:\d+/);
  expect(linesOf(failure)).toContain('caused by Error: socket hang up');
  expect(failure.document.error.retry).toBe(true);
});

it('a bug shows its stack always', () => {
  for (const bug of [
    new TypeError('x is undefined'),
    Object.assign(new Error('y'), { code: 'ERR_INVALID_ARG_TYPE' }),
  ]) {
    const failure = describeFailure(bug, never, quiet);
    expect(linesOf(failure)).toMatch(/failure\.test\.ts:\d+/);
    expect(failure.exitCode).toBe(1);
  }
});

it('a code that is not in the table yet shows its message and ends with 1', () => {
  const failure = describeFailure(Object.assign(new Error('new trouble'), { code: 'NEW_TROUBLE' }), never, quiet);
  expect(linesOf(failure)).toBe('failkit: new trouble');
  expect(failure.document.error).toMatchObject({ code: 'NEW_TROUBLE', exitCode: 1, hint: null });
});

it('several errors at once are all listed', () => {
  const error = new AggregateError([new Error('disk one'), new Error('disk two')], 'two disks failed');
  expect(linesOf(describeFailure(error, never, quiet))).toMatch(/two disks failed\n {2}disk one\n {2}disk two/);
});

it('what failed comes first, and then what failed while it was cleaned up after', () => {
  const gone = new StoreUnavailable('the store went away');
  const twice = new SuppressedError(
    new Error('nor could that be removed'),
    new SuppressedError(new Error('this could not be removed'), gone),
  );
  const failure = describeFailure(twice, never, quiet);
  expect(linesOf(failure)).toMatch(
    /^failkit: the store went away\n {2}and then: this could not be removed\n {2}and then: nor could that be removed\n {2}what to do: /,
  );
  expect(failure.document.error).toMatchObject({ code: 'STORE_UNAVAILABLE', exitCode: 4 });
});

it('a thrown text is reported as what it is', () => {
  expect(linesOf(describeFailure('boo', never, quiet))).toBe('failkit: something was thrown that is no error: boo');
});

it('an interrupted wait is reported as interrupted, also where Node wraps the reason', async () => {
  const controller = new AbortController();
  const waiting = sleep(60_000, undefined, { signal: controller.signal });
  controller.abort(new Interrupted('stopped by SIGINT'));
  const thrown: unknown = await waiting.catch((error: unknown) => error);
  for (const error of [thrown, controller.signal.reason]) {
    const failure = describeFailure(error, controller.signal, quiet);
    expect(failure.document.error).toMatchObject({ code: 'INTERRUPTED', message: 'stopped by SIGINT', exitCode: 130 });
  }
});

it('an error of the winding down is not hidden behind the interruption', () => {
  const aborted = AbortSignal.abort(new Interrupted('stopped by SIGINT'));
  expect(describeFailure(new StoreUnavailable('no answer'), aborted, quiet).exitCode).toBe(4);
});

it('causes that go in a circle are cut off', () => {
  const error = new Error('round');
  error.cause = error;
  expect(linesOf(describeFailure(error, never, quiet)).match(/caused by/g)?.length).toBeLessThan(10);
});
