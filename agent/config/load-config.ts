import { readFileSync, statSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { ConfigInvalid, ConfigNotFound, type ConfigProblem } from './config-invalid.ts';
import { type Config, configSchema } from './config-schema.ts';
import { describeIssue } from './describe-issue.ts';
import type { Environment } from './environment.ts';
import { type ParsedYaml, readYaml } from './read-yaml.ts';
import { referencesFrom } from './references.ts';

/** 5,000 machines with three disks each need about 2 MiB. A disk image named by mistake must not be read whole. */
const configBytesMax = 16 * 1024 * 1024;

/** Reads and checks the whole configuration. Throws ConfigInvalid with every problem that it found, or ConfigNotFound. */
export function loadConfig(file: string, environment: Environment): Config {
  const absolute = resolve(file);
  const yaml = readYaml(readText(absolute));
  if ('problems' in yaml) throw new ConfigInvalid(absolute, yaml.problems);
  const references = referencesFrom(dirname(absolute), environment);
  const parsed = configSchema(references).safeParse(yaml.value ?? {});
  if (parsed.success) return parsed.data;
  throw new ConfigInvalid(absolute, problemsOf(parsed.error.issues, yaml));
}

type Issues = Parameters<typeof describeIssue>[0][];

function problemsOf(issues: Issues, yaml: ParsedYaml): readonly ConfigProblem[] {
  const problems = issues
    .flatMap((issue) => describeIssue(issue, yaml.value))
    .map(({ path, aboutKey, what }) => ({ line: yaml.lineOf(path, aboutKey), key: keyText(path), what }));
  return problems.sort((a, b) => a.line - b.line);
}

function keyText(path: readonly PropertyKey[]): string {
  return path
    .map((step) => (typeof step === 'number' ? `[${step}]` : `.${String(step)}`))
    .join('')
    .replace(/^\./, '');
}

function readText(file: string): string {
  try {
    const stats = statSync(file);
    if (!stats.isFile()) throw unreadable(file, 'is not a plain file');
    if (stats.size > configBytesMax)
      throw unreadable(file, `has ${stats.size} bytes, a configuration at most ${configBytesMax}: check the path`);
    return readFileSync(file, 'utf8');
  } catch (cause) {
    if (cause instanceof ConfigInvalid) throw cause;
    const code = codeOfSystemError(cause);
    if (code === 'ENOENT' || code === 'ENOTDIR') throw new ConfigNotFound(`${file}: there is no such file`, { cause });
    throw unreadable(
      file,
      code === 'EACCES' || code === 'EPERM' ? 'may not be read by this user' : `can't be read (${code})`,
      cause,
    );
  }
}

function unreadable(file: string, what: string, cause?: unknown): ConfigInvalid {
  return new ConfigInvalid(file, [{ line: null, key: '', what }], { cause });
}

function codeOfSystemError(cause: unknown): string {
  return cause instanceof Error && 'code' in cause ? String(cause.code) : 'unknown error';
}
