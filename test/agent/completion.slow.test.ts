import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { exitCodes } from '../../agent/remedy.ts';
import { failkitHere } from './in-process.ts';

/** What the shells themselves make of the scripts, and the formatters of the manual. */

const bin = join(import.meta.dirname, '../../bin');
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
  { words: ['ser'], offers: ['serve'], not: 'seed' },
  { words: ['serve', '--t'], offers: ['--tls-cert', '--tls-key', '--tls-client-ca'], not: '--to' },
  { words: ['completion', 'z'], offers: ['zsh'], not: 'bash' },
];

/** Names are offered from a configuration that is far from right: nothing but names is read. */
const config = join(folder, 'site.yaml');
const machines = `repository: { target: s3, credentials: "\${env:NOT_SET}" }
machines:
  - { name: web-1, source: { disks: [{ label: system }, { label: scratch }] } }
  - { name: web 2 }
  - { nme: wrong }
  - name: 会計
`;
/** The same with `--config FILE` and with `--config=FILE`, and where the names stand after other words. */
const named: readonly {
  readonly words: readonly string[];
  readonly offers: readonly string[];
  readonly not: string;
}[] = [
  { words: ['--config', config, 'sync', 'w'], offers: ['web-1', 'web 2'], not: '会計' },
  { words: ['--config', config, 'sync', 'web-1', ''], offers: ['会計'], not: 'sync' },
  { words: ['status', '--config', config, 'web-'], offers: ['web-1'], not: 'web 2' },
  { words: ['cache', 'rebuild', '--config', config, ''], offers: ['web-1', '会計'], not: 'wrong' },
  { words: ['serve', '--config', config, 'web-1', '--disk', 's'], offers: ['system', 'scratch'], not: 'web-1' },
  { words: ['restore', '--config', config, 'web-1', '--disk', 's'], offers: ['system', 'scratch'], not: 'web-1' },
];
const silent: readonly (readonly string[])[] = [
  ['--config', join(folder, 'a file.yaml'), 'sync', ''],
  ['--config', join(folder, 'none.yaml'), 'sync', ''],
  ['--config', '$(touch evil)', 'sync', ''],
];

beforeAll(async () => {
  for (const shell of ['bash', 'zsh', 'fish']) {
    const { exitCode, stdout } = await failkitHere(['completion', shell]);
    expect(exitCode).toBe(0);
    writeFileSync(script(shell), stdout);
  }
  writeFileSync(join(folder, 'a file.yaml'), '');
  writeFileSync(config, machines);
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
    for (const { words, offers, not } of named) expectOffers(inBash(words).map(unquoted), offers, not);
    expect(inBash(['--config', '=', config, 'sync', 'web-'])).toEqual(['web-1']);
    for (const words of silent) expect(inBash(words)).toEqual([]);
    expect(existsSync(join(folder, 'evil'))).toBe(false);
    expect(bashSays('complete -p failkit')).toBe('complete -F _failkit failkit\n');
  });

  const zsh = needs('zsh');
  it.skipIf(zsh !== null)(zsh ?? 'zsh offers what fits', () => {
    const asked = `compdef() { : }; compadd() { local it=$argv[-1]; print -l -- \${(P)it} }; _files() { print files }; _describe() { local it=$argv[-1]; print -l -- \${(P)it} }`;
    const inZsh = (words: readonly string[]) => {
      const line = ['failkit', ...words].map((word) => `'${word}'`).join(' ');
      const answer = run('zsh', [
        '-f',
        '-c',
        `${asked}; source ${script('zsh')}; words=(${line}); CURRENT=${words.length + 1}; _failkit`,
      ]);
      const last = words.at(-1) ?? '';
      return answer
        .split('\n')
        .map((each) => each.replace(/:.*/, ''))
        .filter((word) => word !== '' && word.startsWith(last));
    };
    for (const { words, offers, not } of [...typed, ...named]) expectOffers(inZsh(words), offers, not);
    expect(inZsh([`--config=${config}`, 'sync', 'web-'])).toEqual(['web-1']);
    for (const words of silent) expect(inZsh(words)).toEqual([]);
  });

  const fish = needs('fish');
  it.skipIf(fish !== null)(fish ?? 'fish offers what fits', () => {
    const inFish = (words: readonly string[]) => {
      const line = ['failkit', ...words].map((word) => word.replaceAll(/[ ($)]/g, '\\$&')).join(' ');
      const answer = run('fish', ['--no-config', '-c', `source ${script('fish')}; complete -C '${line}'`]);
      const found = answer.split('\n').map((offer) => offer.split('\t')[0] ?? '');
      return found.filter((word) => word !== '').map(unquoted);
    };
    for (const { words, offers, not } of [...typed, ...named]) expectOffers(inFish(words), offers, not);
    expect(inFish([`--config=${config}`, 'sync', 'web-'])).toEqual(['web-1']);
    for (const words of silent) expect(inFish(words)).toEqual([]);
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

function unquoted(word: string): string {
  return word.replaceAll('\\', '');
}

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
    cwd: folder,
    env: { ...process.env, PATH: `${bin}${delimiter}${process.env.PATH}`, HOME: folder, LC_ALL: 'C.UTF-8' },
  });
}

function expectOffers(found: readonly string[], offers: readonly string[], not: string): void {
  expect(found).toEqual(expect.arrayContaining([...offers]));
  expect(found).not.toContain(not);
}
