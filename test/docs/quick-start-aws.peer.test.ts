import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { recordOutput } from '../canary.ts';
import { type EndToEndPeers, endToEndNeeds, startPeers } from '../end-to-end/peers.ts';
import { codeBlocks, root, textOf } from './documents.ts';

/**
 * docs/operations/quick-start-aws.md, executed as it stands in a folder that stands for the host. Its `sh` blocks run; what no server
 * here knows stands in `bash` blocks. S3 and KMS are two servers, and only the second knows the users that the page makes: the S3
 * server's own access key is added to the configuration, with its address.
 */

const run = promisify(execFile);
const page = await textOf('docs/operations/quick-start-aws.md');
const isInstalled = (program: string) =>
  (process.env.PATH ?? '').split(delimiter).some((place) => existsSync(join(place, program)));
const needs = (await endToEndNeeds()) ?? (isInstalled('aws') ? null : 'needs aws');

describe.skipIf(needs !== null)(needs ?? 'docs/operations/quick-start-aws.md', () => {
  let servers: EndToEndPeers;
  let folder: string;
  let printed: string;
  beforeAll(async () => {
    servers = await startPeers({ enforceIam: true });
    folder = await mkdtemp(join(tmpdir(), 'failkit-quick-start-'));
    for (const place of ['etc', 'var/lib/vm']) await mkdir(join(folder, place), { recursive: true });
    const disk = join(folder, 'var/lib/vm/web-1.raw');
    await writeFile(disk, Buffer.concat([randomBytes(3_000_000), new Uint8Array(4_000_000), randomBytes(1_000_001)]));
    const longAgo = new Date(Date.now() - 3_600_000);
    await utimes(disk, longAgo, longAgo);
    printed = await shell(withServers(here(codeBlocks(page, 'sh').join('\n'))));
  }, 180_000);
  afterAll(async () => {
    await servers?.[Symbol.asyncDispose]();
    if (folder !== undefined) await rm(folder, { recursive: true });
  });

  it('leads from nothing to a restore that was checked', async () => {
    expect(printed).toMatch(/^ok {7}unwrapping .*write-only|^ok .*may not unwrap/m);
    expect(printed).not.toMatch(/^(failed|warning|skipped) /m);
    expect(printed).toMatch(/^ok +web-1 /m);
    expect(printed).toMatch(/^ok web-1 {2}level full/m);
    const [restored, disk] = ['restored/system.raw', 'var/lib/vm/web-1.raw'].map((file) => join(folder, file));
    expect(await readFile(restored ?? '')).toEqual(await readFile(disk ?? ''));
  });

  it('keeps access keys and the kit from others', async () => {
    for (const file of ['aws-agent', 'aws-restorer', 'kit/root.key'])
      expect((await stat(join(folder, 'etc/failkit', file))).mode & 0o077, file).toBe(0);
  });

  it('leaves a host that can not restore', async () => {
    const failkit = `failkit --config ${folder}/etc/failkit/failkit.yaml restore web-1 --to stolen`;
    const stolen = shell(`export AWS_SHARED_CREDENTIALS_FILE=${folder}/etc/failkit/aws-agent\n${failkit}`);
    await expect(stolen).rejects.toMatchObject({ code: 5 });
  });

  /** The host's paths, inside the folder. */
  function here(script: string): string {
    return script.replaceAll(/\/(etc|var\/lib)\/(failkit|vm)/g, `${folder}/$1/$2`);
  }

  function withServers(script: string): string {
    const { s3 } = servers;
    const credentials = `{ from: access-key, accessKeyId: '${s3.accessKeyId}', secretAccessKey: '\\\${env:S3_SECRET}' }`;
    const address = { s3: `endpoint: '${s3.endpoint}'`, kms: `endpoint: '${servers.kms.endpoint}'` };
    const changed = script
      .replace('repository:\n', `repository:\n  ${address.s3}\n  credentials: ${credentials}\n`)
      .replace('keys:\n', `keys:\n  ${address.kms}\n`)
      .replace('repository: { ', `repository: { ${address.s3}, credentials: ${credentials}, `)
      .replace('keys: { ', `keys: { ${address.kms}, `)
      .replaceAll(/,\n *"Condition": \{.*\} \}$/gm, ' }');
    expect(changed).not.toContain('Condition');
    return changed;
  }

  async function shell(script: string): Promise<string> {
    const { s3, kms } = servers;
    const env = {
      PATH: [join(root, 'bin'), process.env.PATH].join(delimiter),
      HOME: folder,
      AWS_EC2_METADATA_DISABLED: 'true',
      AWS_PAGER: '',
      AWS_ENDPOINT_URL_IAM: kms.endpoint,
      AWS_ENDPOINT_URL_KMS: kms.endpoint,
      AWS_ENDPOINT_URL_S3: s3.endpoint,
      S3_SECRET: s3.secretAccessKey.reveal(),
      ...(process.env.PYENV_ROOT && { PYENV_ROOT: process.env.PYENV_ROOT }),
    };
    const asAdministrator = `aws() {
  case $1 in
    s3api) env AWS_ACCESS_KEY_ID='${s3.accessKeyId}' AWS_SECRET_ACCESS_KEY="$S3_SECRET" aws "$@" ;;
    *) env AWS_ACCESS_KEY_ID='${kms.credentials.accessKeyId}' AWS_SECRET_ACCESS_KEY=any aws "$@" ;;
  esac
}
failkit() {
  case $1 in
    --config) env failkit "$@" ;;
    *) env failkit --config ${folder}/etc/failkit/failkit.yaml "$@" ;;
  esac
}
`;
    const { stdout, stderr } = await run('sh', ['-euc', asAdministrator + script], { cwd: folder, env });
    recordOutput(stdout + stderr);
    return stdout;
  }
});

const systemd = isInstalled('systemd-analyze') ? null : 'needs systemd-analyze';
it.skipIf(systemd !== null)(systemd ?? 'systemd reads the units without a complaint', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'failkit-units-'));
  const names = [...page.matchAll(/`\/etc\/systemd\/system\/([a-z.-]+)`/g)].map(([, name = '']) => join(folder, name));
  const units = codeBlocks(page, 'ini');
  expect(names.length).toBe(4);
  expect(units.length).toBe(4);
  for (const [i, unit] of units.entries())
    await writeFile(names[i] ?? '', unit.replaceAll('/usr/local/bin/failkit', join(root, 'bin/failkit')));
  const { stderr } = await run('systemd-analyze', ['verify', '--recursive-errors=no', ...names]);
  expect(stderr).toBe('');
  await rm(folder, { recursive: true });
});
