import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { canaries, recordOutput } from '../canary.ts';
import { validConfig, wrongConfigs } from './config/wrong-configs.ts';
import { failkitHere } from './in-process.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));
const launcher = join(root, 'bin/failkit');
const { secretAccessKey } = canaries();

interface Outcome {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'failkit-cli-'));
});
afterEach(async () => {
  await rm(folder, { recursive: true });
});

describe('failkit config check', () => {
  it('says what a valid configuration amounts to', async () => {
    const file = await writeConfig(validConfig);
    const outcome = await failkit(['config', 'check', '--config', file]);
    expect(outcome).toEqual({
      exitCode: 0,
      stdout: `ok ${file}\nrepository  ${folder}/bucket\nkeys        ${folder}/keys/wrap.key\nmachines    1\n`,
      stderr: '',
    });
  });

  it('answers a program with one JSON document', async () => {
    const file = await writeConfig(validConfig);
    const { exitCode, stdout } = await failkit(['--json', 'config', 'check', '--config', file]);
    expect(JSON.parse(stdout)).toEqual({ file, repository: `${folder}/bucket`, machines: ['web-1'] });
    expect(exitCode).toBe(0);
  });

  const ownConfig = '/etc/failkit/failkit.yaml';
  it.skipIf(existsSync(ownConfig))(
    `finds failkit.yaml in the folder it is called in (needs no ${ownConfig})`,
    async () => {
      const file = await writeConfig(validConfig);
      const { stdout } = await failkit(['config', 'check', '--json'], { cwd: folder });
      expect(JSON.parse(stdout).machines).toEqual(['web-1']);
      expect(file).toContain(folder);
    },
  );

  // The whole table is in config/load-config.test.ts.
  for (const { title, yaml, says } of wrongConfigs.filter((_, index) => index % 9 === 0))
    it(`ends with 2 and no stack trace: ${title}`, async () => {
      const file = await writeConfig(yaml);
      const { exitCode, stdout, stderr } = await failkitHere(['config', 'check', '--config', file]);
      expect(stderr).toContain(`failkit: ${file}${says}\n`);
      expect(stderr).toContain('what to do: correct the configuration');
      expect(stderr).not.toMatch(/^\s+at /m);
      expect([exitCode, stdout]).toEqual([2, '']);
    });

  it('gives the same in JSON', async () => {
    const file = await writeConfig('segmentMib: 8\n');
    const { exitCode, stdout } = await failkitHere(['config', 'check', '--json', '--config', file]);
    const { error } = JSON.parse(stdout);
    expect(error).toMatchObject({ code: 'CONFIG_INVALID', retry: false, exitCode: 2 });
    expect(error.message).toContain(`${file}:1: segmentMib: unknown key \`segmentMib\`: did you mean \`segmentMiB\`?`);
    expect(exitCode).toBe(2);
  });

  it('shows the stack of a mistake to those who ask for it', async () => {
    const { stderr } = await failkit(['config', 'check', '--config', join(folder, 'none'), '--log-level', 'debug']);
    expect(stderr).toMatch(/there is no such file[\s\S]*\n\s+at .*loadConfig /);
  });

  it('resolves references and never shows them', async () => {
    const credentials = `{ from: access-key, accessKeyId: a, secretAccessKey: "\${env:S3_SECRET}" }`;
    const repository = `{ target: s3, bucket: a-bucket, region: r, credentials: ${credentials} }`;
    const file = await writeConfig(`repository: ${repository}\nkeys: { provider: local-key, file: k }\n`);
    const args = ['config', 'check', '--config', file];
    const good = await failkit(args, { environment: { S3_SECRET: secretAccessKey } });
    expect(good.exitCode).toBe(0);
    expect(good.stdout + good.stderr).not.toContain(secretAccessKey);
    const bad = await failkit(args);
    expect(bad.stderr).toContain('environment variable S3_SECRET is not set');
  });
});

it('failkit config schema prints what is published', async () => {
  const { stdout } = await failkitHere(['config', 'schema']);
  expect(stdout).toBe(await readFile(join(root, 'config.schema.json'), 'utf8'));
});

describe('a wrong command line', () => {
  const wrong: readonly (readonly [readonly string[], string])[] = [
    [[], 'a command is missing'],
    [['config'], 'a command is missing'],
    [['confg'], "unknown command 'confg'\n(Did you mean config?)"],
    [['config', 'chekc'], "unknown command 'chekc'\n(Did you mean check?)"],
    [['config', 'check', '--jsn'], "unknown option '--jsn'\n(Did you mean --json?)"],
    [['config', 'check', '--log-level', 'loud'], "argument 'loud' is invalid"],
    [['config', 'check', 'extra'], 'too many arguments'],
    [['config', 'check', '--config'], "option '--config <file>' argument missing"],
  ];
  for (const [args, says] of wrong)
    it(`ends with 2: failkit ${args.join(' ')}`, async () => {
      const { exitCode, stdout, stderr } = await failkitHere(args);
      expect(stderr).toContain(says);
      expect(stderr).not.toMatch(/^\s+at /m);
      expect([exitCode, stdout]).toEqual([2, '']);
    });

  it('ends the process with 2', async () => {
    const { exitCode, stdout, stderr } = await failkit(['config', 'chekc']);
    expect([exitCode, stdout]).toEqual([2, '']);
    expect(stderr).toContain('(Did you mean check?)');
  });

  it('is answered in JSON when asked to', async () => {
    const { stdout } = await failkitHere(['confg', '--json']);
    expect(JSON.parse(stdout).error).toMatchObject({ code: 'USAGE', exitCode: 2 });
  });
});

describe('the launcher', () => {
  const pinnedNode = 'node_modules/.bin/node';
  const olderNode = `works through symlinks, from any folder, with an older Node in the path (needs ${pinnedNode})`;
  it.skipIf(!existsSync(join(root, pinnedNode)))(olderNode, async () => {
    await mkdir(join(folder, 'bin'));
    await symlink(launcher, join(folder, 'bin/first'));
    await symlink('first', join(folder, 'bin/failkit'));
    await writeFile(join(folder, 'bin/node'), '#!/bin/sh\necho v20.0.0\n', { mode: 0o755 });
    const environment = { PATH: `${join(folder, 'bin')}${delimiter}/usr/bin${delimiter}/bin` };
    const { exitCode, stdout, stderr } = await run(join(folder, 'bin/failkit'), ['--version'], {
      cwd: '/',
      environment,
    });
    expect(stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
    expect([exitCode, stderr]).toEqual([0, '']);
  });

  it('passes arguments on as they are', async () => {
    const { stderr } = await failkit(['config', 'check', '--config', "a 'b' $c *"]);
    expect(stderr).toContain("a 'b' $c *: there is no such file");
  });
});

describe('Ctrl-C', () => {
  const waiting = `
    import { abortOnSignals } from ${JSON.stringify(join(root, 'agent/interrupt.ts'))};
    const signal = abortOnSignals((code) => process.exit(code));
    const windDown = setTimeout(() => {}, 60_000);
    signal.addEventListener('abort', () => {
      console.log(signal.reason.code, signal.reason.message);
      if (process.argv[2] !== 'stuck') clearTimeout(windDown);
    });
    console.log('ready');`;

  it('lets the work wind down the first time', async () => {
    const child = await startWaiting('orderly');
    child.kill('SIGINT');
    expect(await child.ended).toEqual([0, 'ready\nINTERRUPTED stopped by SIGINT\n']);
  });

  it('ends at once with 130 the second time', async () => {
    const child = await startWaiting('stuck');
    child.kill('SIGTERM');
    await child.says('INTERRUPTED stopped by SIGTERM\n');
    child.kill('SIGINT');
    const [exitCode] = await child.ended;
    expect(exitCode).toBe(130);
  });

  async function startWaiting(mode: string) {
    const script = join(folder, 'waiting.mjs');
    await writeFile(script, waiting);
    const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', script, mode]);
    let text = '';
    child.stdout.on('data', (chunk: Buffer) => {
      text += chunk.toString();
    });
    const says = async (wanted: string) => {
      while (!text.includes(wanted)) await once(child.stdout, 'data');
    };
    const ended = once(child, 'close').then(([exitCode]) => [exitCode as number, text] as const);
    await says('ready\n');
    return { says, ended, kill: (name: 'SIGINT' | 'SIGTERM') => child.kill(name) };
  }
});

interface RunOptions {
  readonly cwd?: string;
  readonly environment?: Readonly<Record<string, string>>;
}

async function writeConfig(yaml: string): Promise<string> {
  const file = join(folder, 'failkit.yaml');
  await writeFile(file, yaml);
  return file;
}

function failkit(args: readonly string[], options: RunOptions = {}): Promise<Outcome> {
  return run(launcher, args, options);
}

function run(file: string, args: readonly string[], { cwd = folder, environment = {} }: RunOptions): Promise<Outcome> {
  const env = { PATH: process.env.PATH ?? '', ...environment };
  return new Promise((resolve) => {
    execFile(file, args, { cwd, env }, (error, stdout, stderr) => {
      recordOutput(stdout + stderr);
      resolve({ exitCode: error === null ? 0 : Number(error.code), stdout, stderr });
    });
  });
}
