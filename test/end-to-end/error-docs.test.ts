import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { codesWithRemedy, remedyFor } from '../../agent/remedy.ts';
import { type ErrorRow, errorRows } from './error-rows.ts';

const page = join(import.meta.dirname, '../../docs/operations/errors.md');
const begin = '<!-- Made from test/end-to-end/error-rows.ts: FAILKIT_WRITE_DOCS=1 npx vitest run error-docs -->\n';
const codesBegin = '<!-- Made from agent/remedy.ts, in the same way -->\n';
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

/** Of every error that has a name, whether it was provoked or not. */
function codes(): string {
  const lines = codesWithRemedy().map((code) => {
    const { exitCode, action, hint } = remedyFor(Object.assign(new Error(), { code })) ?? {};
    return `| \`${code}\` | ${exitCode} | ${action === 'retry' ? 'yes' : ''} | ${hint} |`;
  });
  return ['| `error.code` | exit | may pass by itself | what to do |', '|---|---|---|---|', ...lines, ''].join('\n');
}

function withMade(text: string, from: string, made: string): string {
  const [before, rest = ''] = text.split(from);
  return `${before}${from}${made}${rest.slice(rest.indexOf(end))}`;
}

it('docs/operations/errors.md holds the table of errors that the tests provoke', () => {
  const text = readFileSync(page, 'utf8');
  const current = withMade(withMade(text, begin, table()), codesBegin, codes());
  if (process.env.FAILKIT_WRITE_DOCS === '1') writeFileSync(page, current);
  expect(text.includes(begin) && text.includes(codesBegin) && text.endsWith(end)).toBe(true);
  expect(readFileSync(page, 'utf8')).toBe(current);
});

it('every situation is told apart', () => {
  const situations = Object.values<ErrorRow>(errorRows).map(({ situation }) => situation);
  expect(new Set(situations).size).toBe(situations.length);
});
