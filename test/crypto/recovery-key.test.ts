import { execFile } from 'node:child_process';
import { constants, createHash, createPublicKey, generateKeyPairSync, publicEncrypt } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, it } from 'vitest';
import { KeyFileUnusable, KeyRefused } from '../../crypto/errors.ts';
import { encodeKeyContext } from '../../crypto/key-context.ts';
import {
  generateRecoveryKey,
  type RecoveryKeyPair,
  recoveryKeyFromPem,
  recoveryWrapper,
  testRecoveryWrap,
} from '../../crypto/recovery-key.ts';
import { keyProviderContract, sampleContext } from '../contract/key-provider.ts';

const never = new AbortController().signal;
let kit: RecoveryKeyPair;
let otherKit: RecoveryKeyPair;
const makeKits = async () => {
  kit ??= await generateRecoveryKey();
  otherKit ??= await generateRecoveryKey();
};
beforeAll(makeKits, 60_000);

keyProviderContract({
  name: 'recovery-key',
  alteredBytesMax: Infinity,
  open: async () => {
    await makeKits();
    return { one: recoveryKeyFromPem(kit.privatePem), other: recoveryKeyFromPem(otherKit.privatePem) };
  },
});

describe('recovery key', () => {
  it('is named after its public half, by both halves alike', () => {
    const expected = `recovery:${createHash('sha256').update(kit.publicKey).digest('hex').slice(0, 16)}`;
    expect(recoveryWrapper(kit.publicKey).keyId).toBe(expected);
    expect(recoveryKeyFromPem(kit.privatePem).keyId).toBe(expected);
  });

  it('opens with the private half what the public half wrapped', async () => {
    const { key, wrapped } = await recoveryWrapper(kit.publicKey).generateDataKey(sampleContext, never);
    using first = key;
    using again = await recoveryKeyFromPem(kit.privatePem).unwrap(wrapped, sampleContext, never);
    expect(Buffer.from(again.bytes).equals(first.bytes)).toBe(true);
  });

  it('asks for the kit when only the public half is there', async () => {
    const wrapper = recoveryWrapper(kit.publicKey);
    const { key, wrapped } = await wrapper.generateDataKey(sampleContext, never);
    key[Symbol.dispose]();
    const refusal = wrapper.unwrap(wrapped, sampleContext, never);
    await expect(refusal).rejects.toBeInstanceOf(KeyRefused);
    await expect(refusal).rejects.toThrow('the private key from the recovery kit is needed');
  });

  it('refuses a wrap whose content is no data key', async () => {
    const oaep = {
      key: createPublicKey({ key: Buffer.from(kit.publicKey), format: 'der', type: 'spki' }),
      padding: constants.RSA_PKCS1_OAEP_PADDING,
      oaepHash: 'sha256',
      oaepLabel: encodeKeyContext(sampleContext),
    };
    const owner = recoveryKeyFromPem(kit.privatePem);
    const wrapped = { provider: owner.provider, keyId: owner.keyId, blob: publicEncrypt(oaep, Buffer.alloc(31)) };
    await expect(owner.unwrap(wrapped, sampleContext, never)).rejects.toThrow(/31 bytes, not 32/);
  });

  it('passes its own test, and fails it with the halves of two kits', async () => {
    await expect(testRecoveryWrap(kit.publicKey, kit.privatePem, sampleContext, never)).resolves.toBeUndefined();
    await expect(testRecoveryWrap(kit.publicKey, otherKit.privatePem, sampleContext, never)).rejects.toBeInstanceOf(
      KeyRefused,
    );
  });

  it('can be used by openssl alone, as the kit promises', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'failkit-recovery-'));
    const { key, wrapped } = await recoveryWrapper(kit.publicKey).generateDataKey(sampleContext, never);
    using first = key;
    await writeFile(join(folder, 'kit.pem'), kit.privatePem, { mode: 0o600 });
    await writeFile(join(folder, 'blob'), wrapped.blob);
    const label = Buffer.from(encodeKeyContext(sampleContext)).toString('hex');
    const options = ['rsa_padding_mode:oaep', 'rsa_oaep_md:sha256', 'rsa_mgf1_md:sha256', `rsa_oaep_label:${label}`];
    const args = [
      'pkeyutl',
      '-decrypt',
      '-inkey',
      'kit.pem',
      '-in',
      'blob',
      ...options.flatMap((option) => ['-pkeyopt', option]),
    ];
    const { stdout } = await promisify(execFile)('openssl', args, { cwd: folder, encoding: 'buffer' });
    expect(stdout.equals(first.bytes)).toBe(true);
    await rm(folder, { recursive: true });
  });
});

describe('what is no recovery key', () => {
  const rsa = (modulusLength: number, publicExponent = 65537) =>
    generateKeyPairSync('rsa', { modulusLength, publicExponent });
  const spki = (key: ReturnType<typeof rsa>) => key.publicKey.export({ type: 'spki', format: 'der' });
  const pkcs8 = (key: ReturnType<typeof rsa>) => Buffer.from(key.privateKey.export({ type: 'pkcs8', format: 'pem' }));

  it.each([
    ['2048 bits', () => rsa(2048), /3072 to 8192 bits, not 2048/],
    ['a public exponent of 3', () => rsa(3072, 3), /exponent of at least 65537, not 3/],
    ['an elliptic curve', () => generateKeyPairSync('ec', { namedCurve: 'P-256' }), /not one of type ec/],
    [
      'RSA for PSS signatures only',
      () => generateKeyPairSync('rsa-pss', { modulusLength: 3072 }),
      /not one of type rsa-pss/,
    ],
  ])('is refused in both halves: %s', { timeout: 60_000 }, (_, make, message) => {
    const pair = make();
    expect(() => recoveryWrapper(spki(pair))).toThrow(message);
    expect(() => recoveryKeyFromPem(pkcs8(pair))).toThrow(message);
  });

  it('is refused when it is not a key at all, has bytes left over, or is locked by a passphrase', () => {
    const locked = lockedPem();
    expect(() => recoveryWrapper(new Uint8Array(10))).toThrow(KeyFileUnusable);
    expect(() => recoveryWrapper(new Uint8Array([...kit.publicKey, 0]))).toThrow(KeyFileUnusable);
    expect(() => recoveryKeyFromPem(Buffer.from('hello'))).toThrow(KeyFileUnusable);
    expect(() => recoveryKeyFromPem(locked)).toThrow(/openssl pkey/);
  });

  const lockedPem = () => {
    const { privateKey } = rsa(3072);
    return Buffer.from(privateKey.export({ type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase: 'x' }));
  };
});
