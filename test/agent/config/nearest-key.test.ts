import * as fc from 'fast-check';
import { expect, it } from 'vitest';
import { nearestKey } from '../../../agent/config/nearest-key.ts';

const known = ['segmentMiB', 'limits', 'logging', 'machines', 'keys'];

it('finds the key behind a typing slip', () => {
  expect(nearestKey('segmentMib', known)).toBe('segmentMiB');
  expect(nearestKey('segement-mib', known)).toBe('segmentMiB');
  expect(nearestKey('limit', known)).toBe('limits');
  expect(nearestKey('lgoging', known)).toBe('logging');
  expect(nearestKey('key', known)).toBe('keys');
});

it('suggests nothing for a word that resembles none', () => {
  expect(nearestKey('colour', known)).toBeNull();
  expect(nearestKey('x', known)).toBeNull();
  expect(nearestKey('', [])).toBeNull();
});

it('never suggests what is not known, whatever is typed', () =>
  fc.assert(fc.property(fc.string(), (typed) => [...known, null].includes(nearestKey(typed, known)))));
