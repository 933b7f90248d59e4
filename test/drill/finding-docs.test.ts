import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { findingCodes } from '../../drill/drill.ts';

test('docs/operations/drill.md explains every finding, and none that does not exist', async () => {
  const page = await readFile(join(import.meta.dirname, '../../docs/operations/drill.md'), 'utf8');
  const rows = page.split('\n').filter((line) => /^\| `[A-Z]+_/.test(line) && !line.includes('SHA256SUMS'));
  const documented = rows.flatMap((line) =>
    [...(line.split('|')[1] ?? '').matchAll(/`([A-Z_]+)`/g)].map(([, code]) => code),
  );
  expect(documented.sort()).toEqual([...findingCodes].sort());
});
