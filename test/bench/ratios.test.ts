import { describe, expect, it } from 'vitest';
import type { Row } from '../../bench/race.ts';
import { disturbed, type Ratio, ratiosOf, regressions } from '../../bench/ratios.ts';

const seed: Ratio = { step: 'seed', compression: 'fastest', against: 'restic', wall: 2, cpu: 2 };

describe('a ratio', () => {
  it('is that of the shortest runs, whatever disturbed the others', () => {
    const rows = [row('failkit', 100, 50), row('failkit', 900, 60), row('restic', 800, 400), row('restic', 200, 150)];
    expect(ratiosOf(rows)).toEqual([{ ...seed, wall: 2, cpu: 3 }]);
  });

  it('of wall time leaves out runs beside which others were busy, one of CPU time does not', () => {
    const rows = [row('failkit', 200, 50), { ...row('failkit', 100, 40), othersShare: 0.2 }, row('restic', 400, 80)];
    expect(ratiosOf(rows)).toEqual([{ ...seed, wall: 2, cpu: 2 }]);
  });

  it('of wall time does not exist where others were always busy', () => {
    const busy = [row('failkit', 100, 40), row('restic', 100, 80)].map((one) => ({ ...one, othersShare: 0.2 }));
    const measured = ratiosOf(busy);
    expect(measured).toEqual([{ ...seed, wall: null, cpu: 2 }]);
    expect(regressions([seed], measured)).toEqual([]);
    expect(disturbed([seed], measured)).toEqual(['seed (fastest) beside restic']);
    expect(disturbed([seed], measured, ['restic'])).toEqual([]);
    expect(disturbed([seed], [seed])).toEqual([]);
    expect(disturbed(measured, [seed])).toEqual(['seed (fastest) beside restic']);
  });

  it('belongs to one step, one compression and one program', () => {
    const rows = [
      row('failkit', 100, 100),
      row('kopia', 300, 300),
      { ...row('failkit', 10, 10), step: 'resync' as const },
      { ...row('kopia', 50, 50), step: 'resync' as const },
    ];
    expect(ratiosOf(rows)).toEqual([
      { ...seed, against: 'kopia', wall: 3, cpu: 3 },
      { ...seed, step: 'resync', against: 'kopia', wall: 5, cpu: 5 },
    ]);
  });
});

describe('a ratio beside the one that was recorded', () => {
  it.each([
    ['equal', 2, 2],
    ['better', 9, 9],
    ['a quarter smaller', 1.5, 1.5],
  ])('is no regression when %s', (_, wall, cpu) => {
    expect(regressions([seed], [{ ...seed, wall, cpu }])).toEqual([]);
  });

  it.each([
    ['wall time is half as good', 1, 2, 'seed (fastest) beside restic, wall: 1.00, recorded 2.00'],
    ['CPU time is half as good', 2, 1, 'seed (fastest) beside restic, cpu: 1.00, recorded 2.00'],
    ['wall time is more than a quarter smaller', 1.49, 2, 'seed (fastest) beside restic, wall: 1.49, recorded 2.00'],
  ])('is a regression when %s', (_, wall, cpu, message) => {
    expect(regressions([seed], [{ ...seed, wall, cpu }])).toEqual([message]);
  });

  it('may be missing only with its program', () => {
    expect(regressions([seed], [])).toEqual(['seed (fastest) beside restic: was not measured']);
    expect(regressions([seed], [], ['restic'])).toEqual([]);
  });
});

function row(contestant: string, wallMs: number, cpuMs: number): Row {
  const rest = {
    round: 1,
    compression: 'fastest',
    step: 'seed',
    serverCpuMs: 0,
    othersShare: 0,
    storedBytes: 0,
  } as const;
  return { ...rest, contestant, wallMs, cpuMs };
}
