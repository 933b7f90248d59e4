import { execFile } from 'node:child_process';
import { createPublicKey } from 'node:crypto';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Pkcs11Token } from '../../crypto/pkcs11-tool.ts';
import { Secret } from '../../crypto/redacted.ts';
import { peerFolder, peerNeeds } from './server-process.ts';

/** A token of SoftHSM in a folder of its own. Its library finds it by an environment variable, which this process then has. */
export interface TokenPeer extends AsyncDisposable {
  /** Of a key that was made for the caller. */
  createKey(): Promise<{ readonly token: Pkcs11Token; readonly publicKeyPem: string }>;
}

const label = 'failkit-test';
const pin = '4711-pin-of-the-user';

export const softHsmNeeds = () => peerNeeds('softhsm');

export async function makeToken(): Promise<TokenPeer> {
  const folder = await mkdtemp(join(tmpdir(), 'failkit-softhsm-'));
  await mkdir(join(folder, 'tokens'));
  await writeFile(join(folder, 'softhsm2.conf'), `directories.tokendir = ${folder}/tokens\n`);
  const before = process.env.SOFTHSM2_CONF;
  process.env.SOFTHSM2_CONF = join(folder, 'softhsm2.conf');
  const run = promisify(execFile);
  await run('softhsm2-util', [
    '--init-token',
    '--free',
    '--label',
    label,
    '--pin',
    pin,
    '--so-pin',
    '0000-of-the-officer',
  ]);
  const module = join(peerFolder('softhsm'), 'libsofthsm2.so');
  const tool = (...args: readonly string[]) =>
    run('pkcs11-tool', ['--module', module, '--token-label', label, '--login', '--pin', pin, ...args]);
  let made = 0;
  return {
    async createKey() {
      const keyId = (++made).toString(16).padStart(4, '0');
      await tool('--keypairgen', '--key-type', 'rsa:2048', '--id', keyId, '--label', `kek-${keyId}`);
      const file = join(folder, `${keyId}.der`);
      await tool('--read-object', '--type', 'pubkey', '--id', keyId, '--output-file', file);
      const key = createPublicKey({ key: await readFile(file), format: 'der', type: 'spki' });
      const publicKeyPem = String(key.export({ type: 'spki', format: 'pem' }));
      return { token: { module, label, keyId, pin: new Secret(pin) }, publicKeyPem };
    },
    async [Symbol.asyncDispose]() {
      if (before === undefined) delete process.env.SOFTHSM2_CONF;
      else process.env.SOFTHSM2_CONF = before;
      await rm(folder, { recursive: true });
    },
  };
}
