import { readFileSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import type { Ratio } from './ratios.ts';

/** What `npm run bench -- --short --record` wrote down. */
export interface ExpectedRatios {
  /** Of the machine: with more of them other parts are the slowest. */
  readonly cores: number;
  /** What each program says of itself, by name. */
  readonly versions: Readonly<Record<string, string>>;
  readonly ratios: readonly Ratio[];
}

const file = join(import.meta.dirname, 'expected-ratios.json');
const digits = 3;

export function expectedRatios(): ExpectedRatios {
  const expected: ExpectedRatios = JSON.parse(readFileSync(file, 'utf8'));
  return expected;
}

export function recordRatios(ratios: readonly Ratio[], versions: ExpectedRatios['versions']): void {
  const rounded = ratios.map(({ wall, cpu, ...rest }) => ({
    ...rest,
    wall: wall === null ? null : round(wall),
    cpu: round(cpu),
  }));
  const expected: ExpectedRatios = { cores: cpus().length, versions, ratios: rounded };
  writeFileSync(file, `${JSON.stringify(expected, null, 2)}\n`);
}

function round(ratio: number): number {
  return Number(ratio.toFixed(digits));
}
