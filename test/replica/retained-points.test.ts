import fc from 'fast-check';
import { expect, it } from 'vitest';
import { lastUnflagged, mustKeep } from '../../replica/retained-points.ts';

it('what was there before each alarm is kept, and the newest point without one', () => {
  const flags = new Set([5, 6, 9, 12]);
  const points = [1, 3, 5, 6, 7, 9, 10, 12];
  const isFlagged = (point: number): boolean => flags.has(point);
  expect([...mustKeep(points, isFlagged)].sort((a, b) => a - b)).toEqual([3, 7, 10]);
  expect(lastUnflagged(points, isFlagged, 6)).toBe(3);
  expect(lastUnflagged([5, 6], isFlagged)).toBeNull();
  expect([...mustKeep([5, 6], isFlagged)]).toEqual([]);
});

it('whatever retention drops in whatever order, the last point before an alarm and the last without one stay', () => {
  const point = fc.record({ flagged: fc.boolean(), wanted: fc.boolean() });
  fc.assert(
    fc.property(fc.array(point, { maxLength: 30 }), fc.integer({ min: 1, max: 3 }), (rows, rounds) => {
      const isFlagged = (seq: number): boolean => rows[seq]?.flagged === true;
      const all = rows.map((_, seq) => seq);
      const expected = all.filter(
        (seq) => !isFlagged(seq) && (isFlagged(seq + 1) || !all.some((later) => later > seq && !isFlagged(later))),
      );
      let points = all;
      for (let round = 0; round < rounds; round++) {
        const kept = mustKeep(points, isFlagged);
        points = points.filter((seq) => kept.has(seq) || isFlagged(seq) || rows[seq]?.wanted === true);
      }
      expect(points).toEqual(expect.arrayContaining(expected));
    }),
  );
});
