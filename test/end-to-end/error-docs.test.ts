import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { remedyFor } from '../../agent/remedy.ts';
import { type ErrorRow, errorRows } from './error-rows.ts';

const page = join(import.meta.dirname, '../../docs/operations/errors.md');
const begin = '<!-- Made from test/end-to-end/error-rows.ts: FAILKIT_WRITE_DOCS=1 npx vitest run error-docs -->\n';
const end = '<!-- end -->\n';

/** Each row has happened in error-table.peer.test.ts, with this exit code, this code and these words. */
function table(): string {
  const lines = Object.values<ErrorRow>(errorRows).map(({ situation, command, exitCode, code, says }) => {
    const hint = remedyFor(Object.assign(new Error(), { code }))?.hint ?? '';
    const cells = [situation, `\`${command}\``, exitCode, `\`${code}\``, `… ${says} …`, hint || 'as the message says'];
    return `| ${cells.map((cell) => String(cell).replaceAll('|', '\\|')).join(' | ')} |`;
  });
  return [
    '| what happened | command | exit | `error.code` | the message has | what to do |',
    '|---|---|---|---|---|---|',
    ...lines,
    '',
  ].join('\n');
}

it('docs/operations/errors.md holds the table of errors that the tests provoke', () => {
  const text = readFileSync(page, 'utf8');
  const [before, rest = ''] = text.split(begin);
  const after = rest.slice(rest.indexOf(end));
  const current = `${before}${begin}${table()}${after}`;
  if (process.env.FAILKIT_WRITE_DOCS === '1') writeFileSync(page, current);
  expect(text.includes(begin) && text.includes(end)).toBe(true);
  expect(readFileSync(page, 'utf8')).toBe(current);
});

it('every situation is told apart', () => {
  const situations = Object.values<ErrorRow>(errorRows).map(({ situation }) => situation);
  expect(new Set(situations).size).toBe(situations.length);
});
