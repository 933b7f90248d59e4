import { describe, expect, it } from 'vitest';
import { shareOfLimit } from '../../bench/limits/limit-table.ts';
import { formatSpread, median, spreadOf } from '../../bench/spread.ts';

const part = (wallMs: number, cpuMs: number, serverCpuMs = 0) => ({ wallMs, cpuMs, serverCpuMs });

describe('the share of what the parts allow', () => {
  it('is that of the slowest part where it waits', () => {
    expect(shareOfLimit([part(100, 10), part(800, 20)], part(1000, 50), 2)).toBe(0.8);
  });

  it('is that of all cores busy where they are what lacks, the server counted', () => {
    expect(shareOfLimit([part(100, 400), part(300, 1000, 200)], part(1000, 1600), 2)).toBe(0.8);
  });
});

describe('several measurements', () => {
  it('are shown by the median, the shortest and the longest', () => {
    expect(formatSpread(spreadOf([3, 1, 2]))).toBe('2.0 (1.0–3.0)');
    expect(formatSpread(spreadOf([2.25]), 2)).toBe('2.25');
  });

  it('have the mean of the two in the middle as their median', () => {
    expect(median([4, 1, 3, 2])).toBe(2.5);
  });
});
