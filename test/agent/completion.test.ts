import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { exitCodes } from '../../agent/remedy.ts';
import { failkitHere } from './in-process.ts';

/** What the shells themselves make of the scripts, and the formatters of the manual. */

const folder = mkdtempSync(join(tmpdir(), 'failkit-completion-'));
const needs = (program: string) =>
  (process.env.PATH ?? '').split(delimiter).some((place) => existsSync(join(place, program)))
    ? null
    : `needs ${program}`;
const script = (shell: string) => join(folder, `failkit.${shell}`);

/** The command line up to the cursor, and what has to be offered there; `not` must not be. */
const typed: readonly {
  readonly words: readonly string[];
  readonly offers: readonly string[];
  readonly not: string;
}[] = [
  { words: ['st'], offers: ['status'], not: 'seed' },
  { words: ['--config', 'seed', 's'], offers: ['seed', 'sync', 'status'], not: 'points' },
  { words: ['root', 're'], offers: ['request', 'revoke', 'replace'], not: 'resync' },
  { words: ['status', '--m'], offers: ['--max-rpo'], not: '--take-over' },
  { words: ['root', 'revoke', '--r'], offers: ['--root-key', '--raise'], not: '--kit' },
  { words: ['seed', '--j'], offers: ['--json'], not: '--kit' },
  { words: ['verify', '--level', 'c'], offers: ['checksum', 'ciphertext'], not: 'full' },
  { words: ['--log-level', 'd'], offers: ['debug'], not: 'doctor' },
  { words: ['completion', 'z'], offers: ['zsh'], not: 'bash' },
];

beforeAll(async () => {
  for (const shell of ['bash', 'zsh', 'fish']) {
    const { exitCode, stdout } = await failkitHere(['completion', shell]);
    expect(exitCode).toBe(0);
    writeFileSync(script(shell), stdout);
  }
  writeFileSync(join(folder, 'a file.yaml'), '');
});
afterAll(() => rmSync(folder, { recursive: true }));

describe('completion', () => {
  const bash = needs('bash');
  it.skipIf(bash !== null)(`bash offers what fits (${bash ?? 'sourced'})`, () => {
    for (const { words, offers, not } of typed) expectOffers(inBash(words), offers, not);
    expect(inBash(['--log-level', '=', 'w'])).toEqual(['warn']);
    expect(inBash(['--config', join(folder, 'a f')])).toEqual([join(folder, 'a file.yaml')]);
    expect(inBash(['root', 'certify', join(folder, 'a f')])).toEqual([join(folder, 'a file.yaml')]);
    expect(inBash(['status', '--max-rpo', ''])).toEqual([]);
    expect(bashSays('complete -p failkit')).toBe('complete -F _failkit failkit\n');
  });

  const zsh = needs('zsh');
  it.skipIf(zsh !== null)(zsh ?? 'zsh offers what fits', () => {
    const asked = `compdef() { : }; _files() { print files }; _describe() { local it=$argv[-1]; print -l -- \${(P)it} }`;
    for (const { words, offers, not } of typed) {
      const line = ['failkit', ...words].map((word) => `'${word}'`).join(' ');
      const answer = run('zsh', [
        '-f',
        '-c',
        `${asked}; source ${script('zsh')}; words=(${line}); CURRENT=${words.length + 1}; _failkit`,
      ]);
      const last = words.at(-1) ?? '';
      const found = answer
        .split('\n')
        .map((each) => each.replace(/:.*/, ''))
        .filter((word) => word.startsWith(last));
      expectOffers(found, offers, not);
    }
  });

  const fish = needs('fish');
  it.skipIf(fish !== null)(fish ?? 'fish offers what fits', () => {
    for (const { words, offers, not } of typed) {
      const answer = run('fish', [
        '--no-config',
        '-c',
        `source ${script('fish')}; complete -C '${['failkit', ...words].join(' ')}'`,
      ]);
      expectOffers(
        answer.split('\n').map((line) => line.split('\t')[0] ?? ''),
        offers,
        not,
      );
    }
  });

  it('knows no other shell', async () => {
    expect(await failkitHere(['completion', 'tcsh'])).toMatchObject({ exitCode: 2, stdout: '' });
  });
});

describe('the manual', () => {
  let page: string;
  beforeAll(async () => {
    page = (await failkitHere(['man'])).stdout;
    writeFileSync(join(folder, 'failkit.1'), page);
  });

  it('has every command and option of the help, and every exit code', async () => {
    const plain = page.replaceAll('\\-', '-');
    const { stdout: help } = await failkitHere(['--help']);
    const names = [...help.matchAll(/^ {2}([a-z]+) /gm)].map(([, name = '']) => name);
    expect(names).toEqual(expect.arrayContaining(['init', 'status', 'doctor', 'root', 'man', 'help']));
    for (const name of names) expect(plain).toContain(`.SS "failkit ${name}`);
    for (const option of (await failkitHere(['restore', '--help'])).stdout.matchAll(/^ {2}(--[a-z-]+)/gm))
      expect(plain).toContain(option[1]);
    for (const code of Object.values(exitCodes)) expect(page).toContain(`\n.B ${code}\n`);
  });

  const groff = needs('groff');
  it.skipIf(groff !== null)(groff ?? 'groff formats it without a warning', () => {
    const text = run('groff', ['-man', '-Tascii', '-ww', '-P-cbou', join(folder, 'failkit.1')]);
    expect(text).toContain('failkit root certify [options] --root-key'.slice(0, 20));
    expect(text).toMatch(/--root-key <file>\n\s+root\.key of the recovery kit/);
    for (const line of text.split('\n')) expect(line.length).toBeLessThanOrEqual(80);
  });

  const mandoc = needs('mandoc');
  it.skipIf(mandoc !== null)(mandoc ?? 'mandoc finds no error in it', () => {
    expect(run('mandoc', ['-T', 'lint', '-W', 'error', join(folder, 'failkit.1')])).toBe('');
  });
});

function inBash(words: readonly string[]): readonly string[] {
  const line = ['failkit', ...words].map((word) => `'${word}'`).join(' ');
  const asked = `COMP_WORDS=(${line}); COMP_CWORD=${words.length}; _failkit; printf '%s\\n' "\${COMPREPLY[@]}"`;
  return bashSays(asked)
    .split('\n')
    .filter((word) => word !== '');
}

function bashSays(command: string): string {
  return run('bash', ['--norc', '--noprofile', '-c', `source ${script('bash')}; ${command}`]);
}

/** Anything on standard error is a complaint. */
function run(program: string, args: readonly string[]): string {
  return execFileSync(program, args, {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, HOME: folder },
  });
}

function expectOffers(found: readonly string[], offers: readonly string[], not: string): void {
  expect(found).toEqual(expect.arrayContaining([...offers]));
  expect(found).not.toContain(not);
}
