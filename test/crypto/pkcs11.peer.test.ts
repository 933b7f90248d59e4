import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DataKey } from '../../crypto/data-key.ts';
import { type Pkcs11Options, pkcs11 } from '../../crypto/pkcs11.ts';
import type { Pkcs11Token } from '../../crypto/pkcs11-tool.ts';
import { Secret } from '../../crypto/redacted.ts';
import { failkitHere } from '../agent/in-process.ts';
import { keyProviderContract, sampleContext } from '../contract/key-provider.ts';
import { makeToken, softHsmNeeds, type TokenPeer } from '../peers/softhsm.ts';

const needs = await softHsmNeeds();
const never = new AbortController().signal;

type Key = Awaited<ReturnType<TokenPeer['createKey']>>;

/** SoftHSM opens OAEP with SHA-1 only. */
const at = ({ token, publicKeyPem }: Key, more: Partial<Pkcs11Options> = {}) =>
  pkcs11({ publicKeyPem, token, oaepHash: 'sha1', ...more });

describe.skipIf(needs !== null)(needs ?? 'a key on a token', () => {
  let peer: TokenPeer;
  let key: Key;
  beforeAll(async () => {
    peer = await makeToken();
    key = await peer.createKey();
  }, 60_000);
  afterAll(() => peer?.[Symbol.asyncDispose]());

  keyProviderContract({
    name: 'pkcs11',
    alteredBytesMax: 8,
    open: async () => ({ one: at(key), other: at(await peer.createKey()) }),
  });

  const codeWith = async (change: Partial<Pkcs11Token>, more: Partial<Pkcs11Options> = {}): Promise<unknown> => {
    const wrapped = await at(key, more).wrap(DataKey.generate(), sampleContext, never);
    const unwrapping = at(key, { token: { ...key.token, ...change }, ...more }).unwrap(wrapped, sampleContext, never);
    return await unwrapping.then(
      () => null,
      (error: { readonly code: unknown }) => error.code,
    );
  };

  it('names a PIN that is wrong, and shows neither it nor a key', async () => {
    expect(await codeWith({ pin: new Secret('not-the-pin-canary') })).toBe('KEY_DENIED');
    const wrapped = await at(key).wrap(DataKey.generate(), sampleContext, never);
    const denied = at({ ...key, token: { ...key.token, pin: new Secret('not-the-pin-canary') } });
    await expect(denied.unwrap(wrapped, sampleContext, never)).rejects.not.toThrow('canary');
  });

  it.each<[string, Partial<Pkcs11Token>]>([
    ['a key', { keyId: 'ffff' }],
    ['a token', { label: 'no-such-token' }],
    ['a library', { module: '/nonexistent/module.so' }],
  ])('names %s that is not there', async (_, change) => {
    expect(await codeWith(change)).toBe('KEY_NOT_FOUND');
  });

  it('says what to set where a token knows no OAEP with SHA-256', async () => {
    expect(await codeWith({}, { oaepHash: 'sha256' })).toBe('KEY_WRONG');
  });

  it('opens by what the wrap says of its hash, whatever new wraps are made with', async () => {
    const wrapped = await at(key).wrap(DataKey.generate(), sampleContext, never);
    (await at(key, { oaepHash: 'sha256' }).unwrap(wrapped, sampleContext, never))[Symbol.dispose]();
  });

  it('wraps without a token, and then says that it may not unwrap', async () => {
    const agent = at(key, { token: null });
    const { key: data, wrapped } = await agent.generateDataKey(sampleContext, never);
    data[Symbol.dispose]();
    await expect(agent.unwrap(wrapped, sampleContext, never)).rejects.toMatchObject({ code: 'KEY_DENIED' });
    (await at(key).unwrap(wrapped, sampleContext, never))[Symbol.dispose]();
  });

  it('gives up on a token that does not answer, and ends with the reason when cancelled', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'failkit-pkcs11-'));
    const path = process.env.PATH;
    try {
      writeFileSync(join(folder, 'pkcs11-tool'), '#!/bin/sh\nexec sleep 600\n');
      chmodSync(join(folder, 'pkcs11-tool'), 0o755);
      process.env.PATH = `${folder}:${path}`;
      const wrapped = await at(key).wrap(DataKey.generate(), sampleContext, never);
      const late = at(key, { timeoutMs: 200 }).unwrap(wrapped, sampleContext, never);
      await expect(late).rejects.toMatchObject({ code: 'KEY_SERVICE_UNAVAILABLE' });
      const reason = new Error('stopped');
      const stop = new AbortController();
      const cancelled = at(key).unwrap(wrapped, sampleContext, stop.signal);
      stop.abort(reason);
      await expect(cancelled).rejects.toBe(reason);
    } finally {
      process.env.PATH = path;
      rmSync(folder, { recursive: true });
    }
  });

  it('takes a machine from its configuration to a restore', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'failkit-pkcs11-site-'));
    const file = (name: string) => join(folder, name);
    try {
      writeFileSync(file('web.raw'), Buffer.alloc(300_000, 'what the disk held '));
      writeFileSync(file('hsm.pem'), key.publicKeyPem);
      writeFileSync(file('pin'), key.token.pin.reveal(), { mode: 0o600 });
      const { module, label, keyId } = key.token;
      const onToken = `, module: ${module}, token: ${label}, tokenKeyId: '${keyId}', pin: '\${file:${file('pin')}}'`;
      const run = async (access: string, token: string, ...args: readonly string[]) => {
        writeFileSync(
          file('failkit.yaml'),
          `repository: { target: filesystem, directory: bucket }
keys: { provider: pkcs11, publicKeyFile: hsm.pem, oaepHash: sha1${token} }
access: ${access}
state: state
machines:
  - { name: web, source: { type: image, disks: [{ label: root, path: web.raw }] }, whenChanging: mark-inconsistent }
`,
        );
        const { exitCode, stderr } = await failkitHere(['--config', file('failkit.yaml'), ...args]);
        expect(exitCode, stderr).toBe(0);
      };
      await run('write-only', '', 'init', '--kit', file('kit'));
      await run('write-only', '', 'seed');
      await run('full', onToken, 'sync');
      await run('full', onToken, 'restore', 'web', '--to', file('out'));
      expect(readFileSync(file('out/root.raw'))).toEqual(readFileSync(file('web.raw')));
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
