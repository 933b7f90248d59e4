import { Readable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { type BodyAnswer, readBody } from '../../storage-targets/answer-body.ts';

const length = 1000;

/** An answer whose body comes as the test pushes it, and goes on whatever is aborted. */
function answering(): { readonly body: Readable; readonly answer: BodyAnswer } {
  const body = new Readable({ read: () => undefined });
  return { body, answer: { body, announced: length, contentRange: `bytes 0-${length - 1}/${length}` } };
}

describe('the body of an answer', () => {
  it('goes where it is wanted', async () => {
    const { body, answer } = answering();
    const into = new Uint8Array(length);
    const reading = readBody(answer, { offset: 0, length }, 'key', new AbortController().signal, { into });
    for (let at = 0; at < length; at += 250) body.push(new Uint8Array(250).fill(at / 250 + 1));
    body.push(null);
    expect(await reading).toBe(into);
    expect([into[0], into[250], into[999]]).toEqual([1, 2, 4]);
  });

  it('goes nowhere any more once its request was given up, even where it still comes', async () => {
    const { body, answer } = answering();
    const into = new Uint8Array(length);
    const stop = new AbortController();
    const reading = readBody(answer, { offset: 0, length }, 'key', stop.signal, { into });
    reading.catch(() => undefined);
    body.push(new Uint8Array(500).fill(1));
    await new Promise(setImmediate);
    expect(into[0]).toBe(1);
    const reason = new Error('enough');
    stop.abort(reason);
    into.fill(0xa5);
    body.push(new Uint8Array(500).fill(2));
    body.push(null);
    await expect(reading).rejects.toBe(reason);
    expect(into.every((byte) => byte === 0xa5)).toBe(true);
  });

  it.each([
    [900, 'ended after 900 of 1000'],
    [1100, 'more than the 1000'],
  ])('of %i bytes where 1000 were announced is refused', async (bytes, why) => {
    const { body, answer } = answering();
    const reading = readBody(answer, { offset: 0, length }, 'key', new AbortController().signal, {});
    body.push(new Uint8Array(bytes));
    body.push(null);
    await expect(reading).rejects.toThrow(why);
  });
});
