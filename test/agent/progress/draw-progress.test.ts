import { stripVTControlCharacters } from 'node:util';
import picocolors from 'picocolors';
import { expect, it } from 'vitest';
import { progressLine, progressRows } from '../../../agent/progress/draw-progress.ts';
import { cutText, widthOf } from '../../../agent/text-width.ts';

const plain = picocolors.createColors(false);
const coloured = picocolors.createColors(true);
const progress = {
  title: 'accounting-db',
  share: 0.429,
  facts: ['about 4 min left', '42.9 GiB of 100 GiB', 'reading 212 MiB/s'],
  details: ['9.1 GiB sent', '3.0 GiB unchanged', '12.2 GiB zero'],
};

it('a wide terminal gets all of it, in two rows', () => {
  expect(progressRows(progress, 120, plain)).toEqual([
    'accounting-db  ██████████░░░░░░░░░░░░░░   42 %  about 4 min left  42.9 GiB of 100 GiB  reading 212 MiB/s',
    '  9.1 GiB sent · 3.0 GiB unchanged · 12.2 GiB zero',
  ]);
});

it('a narrow one gets what matters most, and what has no room in the first row begins the second', () => {
  expect(progressRows(progress, 60, plain)).toEqual([
    'accounting-db  ████░░░░░░   42 %  about 4 min left',
    '  42.9 GiB of 100 GiB · reading 212 MiB/s · 9.1 GiB sent',
  ]);
  expect(progressRows(progress, 40, plain)).toEqual([
    'accounting-db   42 %  about 4 min left',
    '  42.9 GiB of 100 GiB',
  ]);
});

it('no row ever reaches the edge, whatever the name and the width', () => {
  const titles = [
    'a',
    'a-machine-with-a-name-that-nobody-can-remember-or-read-aloud-00017',
    '会計データベース本番環境',
    '🗄️ db',
  ];
  for (const title of titles)
    for (let columns = 1; columns <= 140; columns++)
      for (const row of progressRows({ ...progress, title }, columns, coloured))
        expect(widthOf(row), `${columns}: ${row}`).toBeLessThan(Math.max(2, columns));
});

it('a title alone may take the whole row, with facts a third of it', () => {
  const title = 'making the root key and the recovery key…';
  expect(progressRows({ title }, 80, plain)).toEqual([title]);
  expect(progressRows({ title, share: 0.5 }, 80, plain)[0]).toMatch(
    /^making the root key and t… {2}████████░{8} {3}50 %$/,
  );
});

it('the bar is full at the end and not before, and knows no more than all', () => {
  const barOf = (share: number) => /[█░]+ +\d+ %/.exec(progressRows({ title: 'm', share }, 60, plain)[0] ?? '')?.[0];
  expect(barOf(0)).toBe('░░░░░░░░░░    0 %');
  expect(barOf(0.9999)).toBe('█████████░   99 %');
  expect(barOf(1)).toBe('██████████  100 %');
  expect(barOf(1.3)).toBe('██████████  100 %');
});

it('colours change nothing but colours', () => {
  const stripped = progressRows(progress, 80, coloured).map(stripVTControlCharacters);
  expect(stripped).toEqual(progressRows(progress, 80, plain));
});

it('a log gets one line', () => {
  expect(progressLine(progress)).toBe(
    'accounting-db  42 %, about 4 min left, 42.9 GiB of 100 GiB, reading 212 MiB/s, 9.1 GiB sent, 3.0 GiB unchanged, 12.2 GiB zero',
  );
  expect(progressLine({ title: 'asking…' })).toBe('asking…');
});

it('wide characters count as two columns, and a cut never halves one', () => {
  expect(widthOf('会計-1')).toBe(6);
  expect(widthOf('\x1b[32mok\x1b[39m')).toBe(2);
  expect(cutText('会計データ', 6)).toBe('会計…');
  expect(cutText('会計データ', 10)).toBe('会計データ');
});
