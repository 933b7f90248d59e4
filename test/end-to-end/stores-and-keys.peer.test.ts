import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { failkitHere } from '../agent/in-process.ts';
import { startCloudKms } from '../fakes/cloud-kms.ts';
import { identityHeader, startKeyVault } from '../fakes/key-vault.ts';
import { azuriteNeeds, startAzurite } from '../peers/azure.ts';
import { fakeGcsNeeds, startFakeGcs } from '../peers/gcs.ts';
import { kmsNeeds, startKms } from '../peers/kms.ts';
import { minioNeeds, startMinio } from '../peers/s3.ts';
import { makeToken, softHsmNeeds } from '../peers/softhsm.ts';
import { startVault, vaultNeeds } from '../peers/vault.ts';

/** Every store with every keeper of keys, and one machine whose keys move from each keeper to the next. */

type Settings = Readonly<Record<string, unknown>>;
interface Peer {
  readonly needs: string | null;
  /** Made anew for each repository. */
  open(): Promise<Settings>;
}

const never: string | null = null;
let folder: string;
let secrets = 0;
const running = new AsyncDisposableStack();
const content = (run: number) => Buffer.alloc(300_000, `what the disk held at the time of run ${run} `);

/** A reference to it, for it must not stand in the configuration. */
function secret(text: string): string {
  const file = join(folder, `secret-${++secrets}`);
  writeFileSync(file, text, { mode: 0o600 });
  return `\${file:${file}}`;
}

function once<T>(start: () => Promise<T & AsyncDisposable>): () => Promise<T> {
  let started: Promise<T & AsyncDisposable> | null = null;
  return async () => {
    started ??= start().then((peer) => running.use(peer));
    return await started;
  };
}

const minio = once(() => startMinio());
const azurite = once(() => startAzurite({ tls: false }));
const gcs = once(() => startFakeGcs({ tls: false }));
const kms = once(() => startKms());
const vault = once(() => startVault());
const token = once(() => makeToken());
const cloudKms = once(() => startCloudKms());
const keyVault = once(() => startKeyVault('https://example.vault.azure.net'));

const stores: Readonly<Record<string, Peer>> = {
  filesystem: {
    needs: never,
    open: async () => ({ target: 'filesystem', directory: `bucket-${++secrets}` }),
  },
  s3: {
    needs: await minioNeeds(),
    open: async () => {
      const { region, endpoint, accessKeyId, secretAccessKey, createBucket } = await minio();
      const credentials = { from: 'access-key', accessKeyId, secretAccessKey: secret(secretAccessKey.reveal()) };
      return { target: 's3', bucket: await createBucket(), region, endpoint, credentials };
    },
  },
  'azure-blob': {
    needs: await azuriteNeeds(),
    open: async () => {
      const { account, endpoint, accountKey, createContainer } = await azurite();
      const credentials = { from: 'account-key', accountKey: secret(accountKey.reveal()) };
      return { target: 'azure-blob', account, container: await createContainer(), endpoint, credentials };
    },
  },
  gcs: {
    needs: await fakeGcsNeeds(),
    open: async () => {
      const { endpoint, serviceAccountKey, createBucket } = await gcs();
      const credentials = { from: 'service-account', key: secret(serviceAccountKey.reveal()) };
      return { target: 'gcs', bucket: await createBucket(), endpoint, credentials };
    },
  },
};

const keepers: Readonly<Record<string, Peer>> = {
  'local-key': {
    needs: never,
    open: async () => ({ provider: 'local-key', file: `local-${++secrets}.key` }),
  },
  'aws-kms': {
    needs: await kmsNeeds(),
    open: async () => {
      const { region, endpoint, credentials: own, createKey } = await kms();
      const { accessKeyId, secretAccessKey } = own;
      const credentials = { from: 'access-key', accessKeyId, secretAccessKey: secret(secretAccessKey.reveal()) };
      return { provider: 'aws-kms', keyId: await createKey(), region, endpoint, credentials };
    },
  },
  'vault-transit': {
    needs: await vaultNeeds(),
    open: async () => {
      const { address, rootToken, createKey } = await vault();
      const credentials = { from: 'token', token: secret(rootToken) };
      return { provider: 'vault-transit', address, key: await createKey(), credentials };
    },
  },
  pkcs11: {
    needs: await softHsmNeeds(),
    open: async () => {
      const { publicKeyPem, token: on } = await (await token()).createKey();
      const publicKeyFile = join(folder, `hsm-${++secrets}.pem`);
      writeFileSync(publicKeyFile, publicKeyPem);
      const { module, label, keyId, pin } = on;
      const place = { module, token: label, tokenKeyId: keyId, pin: secret(pin.reveal()) };
      return { provider: 'pkcs11', publicKeyFile, oaepHash: 'sha1', ...place };
    },
  },
  'gcp-kms (a double)': {
    needs: never,
    open: async () => {
      const double = await cloudKms();
      const credentials = { from: 'service-account', key: secret(double.serviceAccount('encrypt', 'decrypt')) };
      return { provider: 'gcp-kms', key: double.createKey(), endpoint: double.endpoint, credentials };
    },
  },
  'azure-key-vault (a double)': {
    needs: never,
    open: async () => {
      const double = await keyVault();
      // Azure's chain finds this host's identity by them.
      process.env.IDENTITY_ENDPOINT = `${double.endpoint}/identity`;
      process.env.IDENTITY_HEADER = identityHeader;
      return { provider: 'azure-key-vault', keyId: double.createKey(), endpoint: double.endpoint };
    },
  },
};

class Machine {
  readonly #repository: Settings;
  readonly #name = `machine-${++secrets}`;
  #configs = 0;
  #disk = content(0);

  constructor(repository: Settings) {
    this.#repository = repository;
    this.#write(content(1));
  }

  /** A configuration of its own for each keeper. */
  configure(keys: Settings): string {
    const config = join(folder, `${this.#name}-${++this.#configs}.yaml`);
    const disks = [{ label: 'root', path: `${this.#name}.raw` }];
    const machine = { name: this.#name, source: { type: 'image', disks }, whenChanging: 'mark-inconsistent' };
    const settings = { repository: this.#repository, keys, state: `state-${this.#name}`, machines: [machine] };
    writeFileSync(config, stringify(settings));
    return config;
  }

  async run(config: string, ...args: readonly string[]): Promise<void> {
    const { exitCode, stderr } = await failkitHere(['--config', config, ...args]);
    expect(exitCode, `${args.join(' ')}: ${stderr}`).toBe(0);
  }

  async init(config: string): Promise<void> {
    await this.run(config, 'init', '--kit', join(folder, `kit-${this.#name}`));
  }

  async syncAndRestore(config: string, run: number): Promise<void> {
    this.#write(content(run));
    await this.run(config, 'sync');
    const to = join(folder, `out-${this.#name}-${run}`);
    await this.run(config, 'restore', this.#name, '--to', to);
    expect(readFileSync(join(to, 'root.raw')).equals(this.#disk)).toBe(true);
  }

  #write(bytes: Buffer<ArrayBuffer>): void {
    this.#disk = bytes;
    writeFileSync(join(folder, `${this.#name}.raw`), bytes);
  }
}

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'failkit-matrix-'));
});
afterAll(async () => {
  for (const name of ['IDENTITY_ENDPOINT', 'IDENTITY_HEADER']) delete process.env[name];
  await running.disposeAsync();
  rmSync(folder, { recursive: true });
});

describe.each(Object.entries(stores))('%s', (_, store) => {
  describe.each(Object.entries(keepers))('with keys of %s', (_name, keeper) => {
    const needs = store.needs ?? keeper.needs;
    it.skipIf(needs !== null)(needs ?? 'seeds, syncs and restores', { timeout: 180_000 }, async () => {
      const machine = new Machine(await store.open());
      const config = machine.configure(await keeper.open());
      await machine.init(config);
      await machine.run(config, 'seed');
      await machine.syncAndRestore(config, 2);
    });
  });
});

const missing = Object.values(keepers).find(({ needs }) => needs !== null)?.needs ?? null;

it.skipIf(missing !== null)(
  missing ?? 'the keys of one machine move through every keeper, and each opens all of it alone',
  { timeout: 180_000 },
  async () => {
    const machine = new Machine(await (stores.filesystem as Peer).open());
    let [former, run] = ['', 1];
    for (const keeper of Object.values(keepers)) {
      const config = machine.configure(await keeper.open());
      if (former === '') {
        await machine.init(config);
        await machine.run(config, 'seed');
      } else {
        const ready = await failkitHere(['--config', config, 'keys', 'rewrap', '--from', former]);
        expect(ready).toMatchObject({ exitCode: 0, stdout: expect.stringContaining('1 data key wrapped') });
      }
      await machine.syncAndRestore(config, ++run);
      former = config;
    }
    const double = await keyVault();
    const { publicPem, keyId } = double.newest(double.createKey());
    const publicKeyFile = join(folder, 'key-vault.pem');
    writeFileSync(publicKeyFile, publicPem);
    const endpoint = `${double.endpoint}/elsewhere`;
    const config = machine.configure({ provider: 'azure-key-vault', keyId, publicKeyFile, endpoint });
    const moved = await failkitHere(['--config', config, 'keys', 'rewrap', '--from', former]);
    expect(moved.exitCode, 'a vault that does not have the key is found out before anything is written').toBe(5);
    const { stdout } = await failkitHere(['--config', former, 'keys', 'list', '--json']);
    expect(JSON.parse(stdout).machines[0].epochs).toMatchObject([{ revision: Object.keys(keepers).length - 1 }]);
  },
);
