import { glob, readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { codesWithRemedy, exitCodes, remedyFor } from '../../agent/remedy.ts';
import { SourceChanged } from '../../hypervisors/errors.ts';
import { StoreUnavailable } from '../../storage-targets/errors.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));

it('every error that has a code has a remedy, and every remedy an error', async () => {
  expect([...codesWithRemedy()].sort()).toEqual(await codesInTheSources());
});

it('every remedy says what to do, in words of its own', () => {
  for (const code of codesWithRemedy()) {
    const hint = remedyFor(errorWith(code))?.hint ?? '';
    expect(hint, code).toMatch(/^\S.{14,}[^.\s]$/);
    expect(hint, code).not.toContain('\n');
  }
});

it('docs/operations/exit-codes.md puts every code into the row of its exit code', async () => {
  const rows = (await readFile(`${root}docs/operations/exit-codes.md`, 'utf8')).matchAll(/^\| (\d+) \|.*$/gm);
  const documented = [...rows].flatMap(([row, exit]) =>
    [...row.matchAll(/`([A-Z_]+)`/g)].map(([, code]) => `${exit} ${code}`),
  );
  const ownWords = [`${exitCodes.unexpected} UNEXPECTED`, `${exitCodes.usage} USAGE`];
  const expected = codesWithRemedy().map((code) => `${remedyFor(errorWith(code))?.exitCode} ${code}`);
  expect(documented.sort()).toEqual([...expected, ...ownWords].sort());
});

it('tells what to retry from what a person has to mend', () => {
  expect(remedyFor(new StoreUnavailable('away'))).toMatchObject({ exitCode: 4, action: 'retry' });
  expect(remedyFor(new SourceChanged('written'))).toMatchObject({ exitCode: 3 });
  expect(remedyFor(errorWith('FENCED'))).toMatchObject({ exitCode: 6, action: 'stop' });
  expect(remedyFor(errorWith('CHANGE_TRACKING_LOST'))).toMatchObject({ action: 'resync' });
});

it('knows no remedy for what has no name, not even for names that every object has', () => {
  for (const value of [new Error('x'), errorWith('ENOENT'), errorWith('toString'), 'text', null, undefined])
    expect(remedyFor(value)).toBeNull();
});

function errorWith(code: string): Error {
  return Object.assign(new Error(code), { code });
}

async function codesInTheSources(): Promise<readonly string[]> {
  const folders = '{agent,crypto,drill,hypervisors,management-plane,replica,restore,storage-targets}/**/*.ts';
  const codes = new Set<string>();
  for await (const file of glob(folders, { cwd: root }))
    for (const [, code] of (await readFile(root + file, 'utf8')).matchAll(/readonly code = '([A-Z_]+)'/g))
      if (code !== undefined) codes.add(code);
  return [...codes].sort();
}
