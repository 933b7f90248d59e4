import { chmod, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ConfigInvalid } from '../../../agent/config/config-invalid.ts';
import type { Environment } from '../../../agent/config/environment.ts';
import { loadConfig } from '../../../agent/config/load-config.ts';
import { canaries } from '../../canary.ts';
import { validConfig, wrongConfigs } from './wrong-configs.ts';

const { secretAccessKey, token, password } = canaries();

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'failkit-config-'));
});
afterEach(async () => {
  await rm(folder, { recursive: true });
});

describe('a valid configuration', () => {
  it('gets its defaults, absolute paths, and sizes in bytes', async () => {
    expect(await load(validConfig)).toEqual({
      repository: { target: 'filesystem', directory: join(folder, 'bucket') },
      rootFingerprint: null,
      keys: { provider: 'local-key', file: join(folder, 'keys/wrap.key') },
      access: 'full',
      groups: [],
      state: '/var/lib/failkit',
      sources: [],
      machines: [
        {
          name: 'web-1',
          source: {
            type: 'image',
            disks: [{ label: 'root', path: '/var/lib/vm/web.raw', format: 'raw', tracking: 'none' }],
            attachments: [],
          },
          whenChanging: 'refuse',
          quiesce: 'prefer',
          spotCheck: { everyMs: 30 * 24 * 3_600_000, bytesPerRunMax: 64 * 2 ** 30 },
          changeAlarm: { enabled: true, fromBytes: 512 * 2 ** 20 },
          compaction: { share: 0.25, bytesPerRunMax: 2 ** 30 },
          retention: null,
          group: null,
          retentionFrom: 'all',
        },
      ],
      segmentBytes: 8_388_608,
      compression: { level: 'auto' },
      limits: {
        inFlight: 8,
        workers: null,
        memoryBytes: 536_870_912,
        uploadBytesPerSecond: null,
        downloadBytesPerSecond: null,
        readBytesPerSecond: null,
      },
      logging: { level: 'warn', file: null },
    });
  });

  it('reads the address and the thumbprint of a vCenter in each way that people write them', async () => {
    const thumbprint = `${'AB:'.repeat(31)}Cd`;
    const source = (server: string) =>
      `sources: [{ name: a, type: vsphere, server: "${server}", user: u, password: "\${env:PW}", thumbprint: "${thumbprint}" }]\n`;
    const read = async (server: string) => (await load(validConfig + source(server), { PW: password })).sources[0];
    expect(await read('vc.example.net')).toMatchObject({
      address: { host: 'vc.example.net', port: 443 },
      thumbprint: `${'ab'.repeat(31)}cd`,
      caFile: null,
    });
    expect(await read('10.0.0.7:8443')).toMatchObject({ address: { host: '10.0.0.7', port: 8443 } });
    expect(await read('[fe80::1]:8443')).toMatchObject({ address: { host: 'fe80::1', port: 8443 } });
  });

  it.each([
    ['server: "https://vc.example.net/ui"', 'sources[0].server: must be host or host:port, without https://'],
    [`thumbprint: "${'AB:'.repeat(19)}AB"`, 'sources[0].thumbprint: must be a SHA-256 thumbprint: 64 hex digits'],
    [`thumbprint: ${'ab'.repeat(32)}, caFile: ca.pem`, 'sources[0].caFile: is there besides a thumbprint'],
    ['vddk: { transports: "nbdssl,hotadd" }', 'sources[0].vddk.transports: must be names with colons between'],
  ])('refuses a vCenter with %s', async (more, says) => {
    const server = more.startsWith('server') ? '' : 'server: vc, ';
    const source = `sources: [{ name: a, type: vsphere, ${server}user: u, password: "\${env:PW}", ${more} }]\n`;
    expect((await refusal(validConfig + source, { PW: password })).message).toContain(says);
  });

  it('finds a machine of a vCenter in one way, and not in two', async () => {
    const source = `sources: [{ name: a, type: vsphere, server: vc, user: u, password: "\${env:PW}" }]\n`;
    const uuid = '50297B3C-4f0e-6b1a-9d7e-1c2f3a4b5c6d';
    const machine = (at: string) =>
      `${validConfig}  - { name: web-2, source: { type: vsphere, from: a${at} } }\n${source}`;
    const loaded = await load(machine(`, instanceUuid: ${uuid}`), { PW: password });
    expect(loaded.machines[1]?.source).toMatchObject({
      instanceUuid: uuid.toLowerCase(),
      tracking: 'enable',
      reads: 'vddk',
    });
    const both = await refusal(machine(`, instanceUuid: ${uuid}, path: a/vm/b`), { PW: password });
    expect(both.message).toContain('source.path: is there besides instanceUuid: give one of the two');
    const neither = await refusal(machine(''), { PW: password });
    expect(neither.message).toContain('source.instanceUuid: is missing');
  });

  it('counts link speeds in decimal megabits', async () => {
    const { limits } = await load(`${validConfig}limits: { uploadMbitPerSecond: 100, downloadMbitPerSecond: 0.5 }\n`);
    expect([limits.uploadBytesPerSecond, limits.downloadBytesPerSecond]).toEqual([12_500_000, 62_500]);
  });

  it('gives each machine the spot checks and alarms of all, unless it has its own', async () => {
    const own = '  - { name: other, source: *s, spotCheck: { everyDays: 0 }, changeAlarm: { enabled: false } }\n';
    const all = 'spotCheck: { everyDays: 7, maxGiBPerRun: 0.5 }\nchangeAlarm: { fromMiB: 1 }\n';
    const { machines } = await load(`${validConfig}${own}${all}`);
    expect(machines.map(({ spotCheck, changeAlarm }) => ({ ...spotCheck, ...changeAlarm }))).toEqual([
      { everyMs: 7 * 24 * 3_600_000, bytesPerRunMax: 2 ** 29, enabled: true, fromBytes: 2 ** 20 },
      { everyMs: 0, bytesPerRunMax: 64 * 2 ** 30, enabled: false, fromBytes: 512 * 2 ** 20 },
    ]);
  });

  it('addresses the bucket by path when there is an endpoint, unless told otherwise', async () => {
    const pathStyleOf = async (more: string) => {
      const { repository } = await load(s3Config(more));
      return repository.target === 's3' && repository.pathStyle;
    };
    expect(await pathStyleOf('')).toBe(false);
    expect(await pathStyleOf('endpoint: http://127.0.0.1:9000')).toBe(true);
    expect(await pathStyleOf('endpoint: http://127.0.0.1:9000, pathStyle: false')).toBe(false);
    expect(await pathStyleOf('pathStyle: true')).toBe(true);
  });

  it('strips the slashes around a prefix and after an endpoint', async () => {
    const { repository } = await load(s3Config('prefix: /site/a/, endpoint: "https://s3.example:9000/"'));
    expect(repository).toMatchObject({ prefix: 'site/a', endpoint: 'https://s3.example:9000' });
  });

  it('may use anchors and aliases', async () => {
    const config = await load(`${validConfig}  - { <<: &x {}, name: other, source: *s }\n`.replace('<<: &x {}, ', ''));
    expect(config.machines.map((machine) => machine.name)).toEqual(['web-1', 'other']);
    expect(config.machines[1]?.source).toEqual(config.machines[0]?.source);
  });
});

describe('a wrong configuration', () => {
  for (const { title, yaml, says } of wrongConfigs)
    it(`is refused: ${title}`, async () => {
      const error = await refusal(yaml);
      expect(error.message).toBe(`${join(folder, 'failkit.yaml')}${says}`);
    });

  it('is refused with every problem at once, in the order of the file', async () => {
    const yaml = `${validConfig}segmentMib: 9\naccess: some\ncompression: { level: 99 }\n`;
    const error = await refusal(yaml);
    expect(error.problems).toEqual([
      { line: 7, key: 'segmentMib', what: 'unknown key `segmentMib`: did you mean `segmentMiB`?' },
      { line: 8, key: 'access', what: 'must be one of full, write-only' },
      { line: 9, key: 'compression.level', what: 'must be at most 19' },
    ]);
    expect(error.message).toMatch(/^the configuration has 3 problems:\n {2}\/.*failkit\.yaml:7: segmentMib: /);
  });

  it('does not flood the screen', async () => {
    const yaml = validConfig + Array.from({ length: 50 }, (_, index) => `zzz${index}: 1\n`).join('');
    const error = await refusal(yaml);
    expect(error.problems.length).toBe(50);
    expect(error.message.split('\n').length).toBe(22);
    expect(error.message).toMatch(/and 30 more$/);
  });

  it('is refused when there is none, when it is a directory, and when it is huge', async () => {
    expect(() => loadConfig(join(folder, 'none.yaml'), {})).toThrow(/none\.yaml: there is no such file$/);
    expect(() => loadConfig(folder, {})).toThrow(/is not a plain file/);
    await writeFile(join(folder, 'big.yaml'), Buffer.alloc(17 * 1024 * 1024));
    expect(() => loadConfig(join(folder, 'big.yaml'), {})).toThrow(/has 17825792 bytes/);
  });
});

describe('a secret', () => {
  const withSecret = (reference: string) =>
    s3Config(`credentials: { from: access-key, accessKeyId: AKIA1, secretAccessKey: "${reference}" }`);

  it('comes out of the environment, and prints as [redacted] wherever it is shown', async () => {
    const config = await load(withSecret(env('S3_SECRET')), { S3_SECRET: secretAccessKey });
    if (config.repository.target !== 's3' || config.repository.credentials.from !== 'access-key') throw new Error('s3');
    expect(config.repository.credentials.secretAccessKey.reveal()).toBe(secretAccessKey);
    for (const shown of [
      JSON.stringify(config),
      inspect(config, { depth: 9 }),
      `${config.repository.credentials.secretAccessKey}`,
    ]) {
      expect(shown).toContain('[redacted]');
      expect(shown).not.toContain(secretAccessKey);
    }
  });

  it('comes out of a file beside the configuration, without the line end', async () => {
    await writeFile(join(folder, 'secret'), `${secretAccessKey}\n`, { mode: 0o600 });
    const { repository } = await load(withSecret(file('secret')));
    expect(repository).toMatchObject({ credentials: { accessKeyId: 'AKIA1' } });
    expect(JSON.stringify(repository)).not.toContain(secretAccessKey);
  });

  it('is refused when it stands in the file, without being shown', async () => {
    const error = await refusal(withSecret(secretAccessKey));
    expect(error.message).toMatch(/secretAccessKey: is a secret and must not stand in this file: write a reference/);
    expect(inspect(error)).not.toContain(secretAccessKey);
  });

  it('is refused when only a part of it is a reference', async () => {
    const error = await refusal(withSecret(`${token}\${env:REST}`));
    expect(error.message).toMatch(/is a secret and must not stand in this file/);
    expect(inspect(error)).not.toContain(token);
  });

  it('may have a key id beside it that is literal or a reference, but not half of each', async () => {
    const withId = (id: string) =>
      s3Config(`credentials: { from: access-key, accessKeyId: "${id}", secretAccessKey: "${env('S3_SECRET')}" }`);
    const environment = { S3_SECRET: secretAccessKey, ID: 'AKIA2' };
    const loaded = await load(withId(env('ID')), environment);
    expect(loaded.repository).toMatchObject({ credentials: { accessKeyId: 'AKIA2' } });
    const error = await refusal(withId(`AK${env('ID')}`), environment);
    expect(error.message).toMatch(/accessKeyId: is a reference in part only/);
  });

  it('is not shown by a YAML error either', async () => {
    for (const broken of [
      `*${token}`,
      `!${token}`,
      `"${token}" x`,
      `"${token}\\q"`,
      `@${token}`,
      `{ ${token}`,
      `[${token}}`,
    ]) {
      const error = await refusal(`keys: { provider: aws-kms }\nrepository:\n  secretAccessKey: ${broken}\n`);
      expect(inspect(error)).not.toContain(token);
    }
  });

  it('may also be a proxy address, where a literal one must hold no password', async () => {
    const address = `http://user:${password}@proxy.example:3128`;
    const { repository } = await load(s3Config(`proxy: "${env('PROXY')}"`), { PROXY: address });
    expect(repository.target === 's3' && repository.proxy?.reveal()).toBe(address);
    const error = await refusal(s3Config(`proxy: "${address}"`));
    expect(error.message).toMatch(/proxy: holds a password, which must not stand in this file/);
    expect(inspect(error)).not.toContain(password);
  });

  const unusable: readonly (readonly [string, RegExp, () => Promise<unknown>])[] = [
    ['a missing file', /secret file .*secret does not exist/, async () => undefined],
    ['a file that others may read', /mode 0640\): run chmod 600/, () => secretFile(0o640)],
    ['a file that others may write', /mode 0602\): run chmod 600/, () => secretFile(0o602)],
    ['an open file behind a link', /mode 0644\): run chmod 600/, linkToOpenFile],
    ['an empty file', /secret is empty/, () => writeFile(join(folder, 'secret'), '\n', { mode: 0o600 })],
    ['a directory', /is not a plain file/, () => mkdir(join(folder, 'secret'), 0o700)],
    ['a huge file', /has 70000 bytes/, () => writeFile(join(folder, 'secret'), 'x'.repeat(70_000), { mode: 0o600 })],
  ];
  for (const [title, message, prepare] of unusable)
    it(`is refused from ${title}`, async () => {
      await prepare();
      const error = await refusal(withSecret(file('secret')));
      expect(error.message).toMatch(message);
      expect(inspect(error)).not.toContain(secretAccessKey);
    });

  it('is refused from a variable that is not set, or empty', async () => {
    expect((await refusal(withSecret(env('NOPE')))).message).toMatch(/environment variable NOPE is not set/);
    expect((await refusal(withSecret(env('NOPE')), { NOPE: '' })).message).toMatch(/variable NOPE is empty/);
  });
});

const env = (name: string) => `\${env:${name}}`;
const file = (name: string) => `\${file:${name}}`;

async function load(yaml: string, environment: Environment = {}) {
  await writeFile(join(folder, 'failkit.yaml'), yaml);
  return loadConfig(join(folder, 'failkit.yaml'), environment);
}

async function refusal(yaml: string, environment: Environment = {}): Promise<ConfigInvalid> {
  const outcome: unknown = await load(yaml, environment).catch((error: unknown) => error);
  if (outcome instanceof ConfigInvalid) return outcome;
  throw new Error('expected ConfigInvalid', { cause: outcome });
}

function s3Config(more: string): string {
  const repository = `repository: { target: s3, bucket: a-bucket, region: eu-central-1${more === '' ? '' : `, ${more}`} }\n`;
  return `${repository}keys: { provider: local-key, file: wrap.key }\n`;
}

async function secretFile(mode: number): Promise<void> {
  await writeFile(join(folder, 'secret'), secretAccessKey);
  await chmod(join(folder, 'secret'), mode);
}

async function linkToOpenFile(): Promise<void> {
  await writeFile(join(folder, 'elsewhere'), secretAccessKey);
  await chmod(join(folder, 'elsewhere'), 0o644);
  await symlink('elsewhere', join(folder, 'secret'));
}
