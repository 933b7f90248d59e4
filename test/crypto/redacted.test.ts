import { inspect } from 'node:util';
import { expect, it } from 'vitest';
import { Secret } from '../../crypto/redacted.ts';

const canary = 'canary-7f3a';
const secret = new Secret(canary);

it('a secret is revealed only when asked for', () => {
  expect(secret.reveal()).toBe(canary);
});

it.each([
  ['String()', String(secret)],
  ['a template string', `${secret}`],
  ['joining', ['x', secret].join(' ')],
  ['JSON', JSON.stringify({ deep: [secret] })],
  ['inspect', inspect({ deep: { secret } }, { depth: 9, showHidden: true })],
  ['inspect of an error that carries it', inspect(Object.assign(new Error('no'), { secret }), { showHidden: true })],
])('a secret reads [redacted] in %s', (_, text) => {
  expect(text).toContain('[redacted]');
  expect(text).not.toContain(canary);
});

it('a copy or a spread of a secret holds nothing', () => {
  expect(JSON.stringify({ ...secret, cloned: structuredClone(secret), keys: Object.keys(secret) })).not.toContain(
    canary,
  );
});
