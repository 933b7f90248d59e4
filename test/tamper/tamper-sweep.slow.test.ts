import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { complaint } from './expectations.ts';
import { everyKind } from './object-fields.ts';
import { isNamed } from './read-everything.ts';
import { type Attempt, runSweep } from './run-sweep.ts';
import { thorough } from './sample.ts';
import { makeSpecimen, type Specimen } from './specimen.ts';
import { complaintsWithout, weakenings } from './weakened-sources.ts';

const sweepTimeoutMs = 3_600_000;

describe('a bucket that somebody changed', () => {
  let specimen: Specimen;
  beforeAll(async () => {
    specimen = await makeSpecimen('large');
  });
  afterAll(async () => await specimen.rig[Symbol.asyncDispose]());

  it('never restores a wrong byte, and says which object was changed', { timeout: sweepTimeoutMs }, async () => {
    const complaints: string[] = [];
    const table = new Map<string, number>();
    const kinds = new Set<string>();
    for await (const attempt of runSweep(specimen, thorough(specimen))) {
      kinds.add(attempt.manipulation.kind);
      const row = rowOf(attempt);
      table.set(row, (table.get(row) ?? 0) + 1);
      const found = complaint(attempt);
      if (found !== null) complaints.push(found);
    }
    print(table);
    expect(complaints).toEqual([]);
    expect([...kinds].sort()).toEqual([...everyKind, 'bucket'].sort());
    const total = [...table.values()].reduce((sum, count) => sum + count, 0);
    expect(total).toBeGreaterThan(5_000);
  });
});

describe('the sweep itself', () => {
  it.each(weakenings)('fails without $without', async (weakening) => {
    const complaints = await complaintsWithout(weakening);
    console.log(`without ${weakening.without}: ${complaints.length}, the first: ${complaints[0]}`);
    expect(complaints.length).toBeGreaterThan(0);
  });
});

function rowOf({ manipulation: { kind, name }, outcome: { noticed, error } }: Attempt): string {
  const code = isNamed(error) ? error.code : error === null ? '(reads right)' : `${error}`;
  return [kind.padEnd(15), name.padEnd(36), code.padEnd(22), (noticed ?? '').padEnd(18)].join(' ');
}

function print(table: ReadonlyMap<string, number>): void {
  const rows = [...table]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([row, count]) => `${row} ${String(count).padStart(6)}`);
  console.log(
    [
      `${'object'.padEnd(15)} ${'manipulation'.padEnd(36)} ${'error'.padEnd(22)} ${'noticed by'.padEnd(18)}  count`,
      ...rows,
    ].join('\n'),
  );
}
