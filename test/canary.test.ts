import { existsSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { describe, expect, onTestFinished, test } from 'vitest';
import { canaries, canariesFrom, removeCanaryFolder, sweepCanaries } from './canary.ts';

/** Other secrets than this run's own, so that the planted leaks below are not found by the real sweep. */
const planted = canariesFrom('planted');

function leaksIn(printed: string): string[] {
  const folder = mkdtempSync(join(tmpdir(), 'failkit-canary-test-'));
  onTestFinished(() => removeCanaryFolder(folder));
  writeFileSync(join(folder, 'printed.log'), printed);
  return sweepCanaries(folder, planted);
}

describe('a printed secret is found', () => {
  const key = Buffer.from(planted.keyBytes);
  test.for([
    ['a password in a sentence', `signing in with ${planted.password}…`],
    ['a token inside JSON', JSON.stringify({ headers: { authorization: `Bearer ${planted.token}` } })],
    ['a key in hex', key.toString('hex')],
    ['a key in upper-case hex', key.toString('hex').toUpperCase()],
    ['a key in base64', key.toString('base64')],
    ['a key in base64url', key.toString('base64url')],
    ['a key in the middle of something in base64', Buffer.concat([Buffer.from('ab'), key, key]).toString('base64')],
    ['a key as JSON bytes', JSON.stringify({ key: [...key] })],
    ['a key as console.log shows a Uint8Array', inspect(planted.keyBytes)],
    ['a key as console.log shows a Buffer', inspect(key)],
    ['a secret access key', `aws_secret_access_key = ${planted.secretAccessKey}`],
  ] as const)('%s', ([, printed]) => {
    expect(leaksIn(printed)).not.toEqual([]);
  });
});

test('the folder of the whole run is left to whoever made it', () => {
  const folder = process.env.FAILKIT_CANARY_FOLDER ?? '';
  removeCanaryFolder(folder);
  expect(existsSync(folder)).toBe(true);
});

test('what is no secret is not found', () => {
  expect(leaksIn('password=[redacted] key=[redacted] 0123456789abcdef')).toEqual([]);
});

test('a leak is reported without the secret', () => {
  const report = leaksIn(planted.password).join();
  expect(report).toContain('password');
  expect(report).not.toContain(planted.password);
});

test('every process of a run has the same secrets', () => {
  expect(canaries()).toEqual(canaries());
  expect(canaries().password).not.toBe(planted.password);
});
