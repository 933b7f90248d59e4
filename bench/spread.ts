/** The median of several measurements, and how far they lie apart: none is dropped. */
export interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

export function spreadOf(values: readonly number[]): Spread {
  return { median: median(values), min: Math.min(...values), max: Math.max(...values) };
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}

/** `12.4 (11.9–14.0)`; alone where there is one value only. */
export function formatSpread({ median: middle, min, max }: Spread, digits = 1): string {
  const text = middle.toFixed(digits);
  return min === max ? text : `${text} (${min.toFixed(digits)}–${max.toFixed(digits)})`;
}

export function secondsOf(ms: readonly number[]): Spread {
  return spreadOf(ms.map((value) => value / 1000));
}
