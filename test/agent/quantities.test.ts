import * as fc from 'fast-check';
import { expect, it } from 'vitest';
import { formatBytes, formatDuration, formatSpeed } from '../../agent/quantities.ts';

it('writes sizes in binary units', () => {
  const shown = [0, 1, 1023, 1024, 1536, 64 * 2 ** 20, 100 * 2 ** 30, 2 ** 40 - 1, 2 ** 53].map(formatBytes);
  expect(shown).toEqual(['0 B', '1 B', '1023 B', '1.0 KiB', '1.5 KiB', '64.0 MiB', '100 GiB', '1.0 TiB', '8.0 PiB']);
});

it('never needs more than four digits before the unit, except past the last unit', () =>
  fc.assert(
    fc.property(fc.nat(2 ** 31 - 1), fc.nat(2 ** 20), (a, b) => {
      const amount = Number.parseFloat(formatBytes(a * b));
      expect(amount).toBeLessThan(1024);
    }),
  ));

it('writes durations with the two units that matter', () => {
  const shown = [0, 999, 1000, 12_345, 59_949, 59_999, 245_000, 3_599_600, 12_000_000, 187_200_000].map(formatDuration);
  expect(shown).toEqual([
    '0 ms',
    '999 ms',
    '1.0 s',
    '12.3 s',
    '59.9 s',
    '1 min 00 s',
    '4 min 05 s',
    '1 h 00 min',
    '3 h 20 min',
    '2 d 4 h',
  ]);
});

it('writes a dash for a speed that nobody measured', () => {
  expect(formatSpeed(10 * 2 ** 20)).toBe('10.0 MiB/s');
  expect(formatSpeed(5 / 0)).toBe('–');
  expect(formatSpeed(0 / 0)).toBe('–');
});
