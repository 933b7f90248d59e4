import { execFile } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { chmod, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { KeyFileUnusable, SignatureInvalid } from '../../crypto/errors.ts';
import {
  FingerprintMalformed,
  hasRootFingerprint,
  parseRootFingerprint,
  rootFingerprint,
} from '../../crypto/root-fingerprint.ts';
import { ecdsaP256, ecdsaP384, ed25519 as ed25519Algorithm } from '../../crypto/signature-algorithms.ts';
import { keyIdOf, type PublicKey, SigningKey, verifySignature } from '../../crypto/signing.ts';
import { createSigningKeyFile, loadSigningKeyFile } from '../../crypto/signing-key-file.ts';

const ed25519 = ed25519Algorithm.id;
const domain = 'failkit/v1/chain-entry';
const message = Buffer.from('entry 12');
const key = SigningKey.generate();
const signature = key.sign(domain, message);
const bytesOf = (hex: string) => new Uint8Array(Buffer.from(hex, 'hex'));

describe('signatures', () => {
  it('verify for the bytes, the domain and the key they were made with', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 500 }), (bytes) => {
        expect(() => verifySignature(key.publicKey, domain, bytes, key.sign(domain, bytes))).not.toThrow();
      }),
    );
  });

  it.each([
    ['message', { message: Buffer.from('entry 13') }],
    ['empty message', { message: new Uint8Array() }],
    ['domain', { domain: 'failkit/v1/key-record' }],
    ['key', { publicKey: SigningKey.generate().publicKey }],
    ['algorithm', { publicKey: { algorithm: 2, bytes: key.publicKey.bytes } }],
    ['shorter key', { publicKey: { algorithm: ed25519, bytes: key.publicKey.bytes.slice(0, 31) } }],
    ['longer key', { publicKey: { algorithm: ed25519, bytes: new Uint8Array([...key.publicKey.bytes, 0]) } }],
    ['shorter signature', { signature: signature.slice(0, 63) }],
    ['longer signature', { signature: new Uint8Array([...signature, 0]) }],
    ['empty signature', { signature: new Uint8Array() }],
  ])('fail for another %s', (_, change) => {
    const given = { publicKey: key.publicKey, domain, message, signature, ...change };
    const check = () => verifySignature(given.publicKey, given.domain, given.message, given.signature);
    expect(check).toThrow(SignatureInvalid);
  });

  it('fail with any single bit flipped', () => {
    for (let bit = 0; bit < signature.length * 8; bit++) {
      const flipped = signature.map((byte, index) => (index === bit >> 3 ? byte ^ (1 << (bit & 7)) : byte));
      expect(() => verifySignature(key.publicKey, domain, message, flipped)).toThrow(SignatureInvalid);
    }
  });

  it('do not let bytes move from the domain into the message', () => {
    const moved = key.sign('a', Buffer.from([0, ed25519, 0x62]));
    expect(() => verifySignature(key.publicKey, 'a', Buffer.from([0x62]), moved)).toThrow(SignatureInvalid);
    expect(() => key.sign('a\0b', message)).toThrow(RangeError);
    expect(() => key.sign('', message)).toThrow(RangeError);
  });

  it('are not malleable: adding the group order to S fails', () => {
    const order = 2n ** 252n + 27742317777372353535851937790883648493n;
    const littleEndian = (bytes: Uint8Array) => BigInt(`0x${Buffer.from(bytes).reverse().toString('hex')}`);
    const larger = (littleEndian(signature.slice(32)) + order).toString(16).padStart(64, '0');
    const second = new Uint8Array([...signature.slice(0, 32), ...Buffer.from(larger, 'hex').reverse()]);
    expect(() => verifySignature(key.publicKey, domain, message, second)).toThrow(SignatureInvalid);
  });

  it('under a small-order key are refused, though they would fit any message', () => {
    for (const point of [
      '01',
      '00',
      'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
      '0100000000000000000000000000000000000000000000000000000000000080',
    ]) {
      const publicKey: PublicKey = { algorithm: ed25519, bytes: bytesOf(point.padEnd(64, '0')) };
      const forged = new Uint8Array(64).fill(1, 0, 1);
      expect(() => verifySignature(publicKey, domain, message, forged)).toThrow(/small-order/);
    }
  });

  it('agree with RFC 8032: the first test vector seed gives its public key', () => {
    const der = bytesOf(
      `302e020100300506032b657004220420${'9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60'}`,
    );
    const pem = Buffer.from(
      `-----BEGIN PRIVATE KEY-----\n${Buffer.from(der).toString('base64')}\n-----END PRIVATE KEY-----\n`,
    );
    const { publicKey } = SigningKey.fromPem(pem, 'the RFC');
    expect(Buffer.from(publicKey.bytes).toString('hex')).toBe(
      'd75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a',
    );
  });
});

describe.each([ecdsaP256, ecdsaP384])('signatures of $name', (algorithm) => {
  const ownKey = SigningKey.generate(algorithm);
  const { publicKey } = ownKey;
  const half = algorithm.signatureBytes / 2;
  const refuses = (given: Uint8Array, by: PublicKey = publicKey, bytes: Uint8Array = message) =>
    expect(() => verifySignature(by, domain, bytes, given)).toThrow(SignatureInvalid);

  it('verify for the bytes, the domain and the key they were made with, and for no others', () => {
    for (let i = 0; i < 50; i++) verifySignature(publicKey, domain, message, ownKey.sign(domain, message));
    const made = ownKey.sign(domain, message);
    refuses(made, publicKey, Buffer.from('entry 13'));
    refuses(made, SigningKey.generate(algorithm).publicKey);
    refuses(made, key.publicKey);
    expect(() => verifySignature(publicKey, 'failkit/v1/key-record', message, made)).toThrow(SignatureInvalid);
  });

  it('fail with any single bit flipped, cut or lengthened', () => {
    const made = ownKey.sign(domain, message);
    for (let bit = 0; bit < made.length * 8; bit++)
      refuses(made.map((byte, index) => (index === bit >> 3 ? byte ^ (1 << (bit & 7)) : byte)));
    refuses(made.slice(1));
    refuses(Uint8Array.from([...made, 0]));
    refuses(new Uint8Array(algorithm.signatureBytes));
  });

  it('are not malleable: the other s fails', () => {
    const order =
      algorithm === ecdsaP256
        ? 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n
        : 0xffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973n;
    const made = Buffer.from(ownKey.sign(domain, message));
    const other = (order - BigInt(`0x${made.subarray(half).toString('hex')}`)).toString(16).padStart(2 * half, '0');
    refuses(Buffer.concat([made.subarray(0, half), Buffer.from(other, 'hex')]));
  });

  it('are refused under bytes that are no point of the curve', () => {
    const { bytes } = publicKey;
    const made = ownKey.sign(domain, message);
    refuses(made, { algorithm: algorithm.id, bytes: bytes.map((byte, index) => (index === 9 ? byte ^ 1 : byte)) });
    refuses(made, { algorithm: algorithm.id, bytes: new Uint8Array(bytes.length) });
    refuses(made, { algorithm: algorithm.id, bytes: bytes.slice(1) });
    refuses(made, { algorithm: 4, bytes });
  });

  it('are made by the same key after it was in a file', () => {
    const again = SigningKey.fromPem(ownKey.exportPem(), 'a file');
    expect(again.publicKey).toEqual(publicKey);
    verifySignature(publicKey, domain, message, again.sign(domain, message));
  });
});

describe('key ids and root fingerprints', () => {
  const fixed: PublicKey = {
    algorithm: ed25519,
    bytes: bytesOf('d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a'),
  };

  it('have fixed values for a fixed key', () => {
    expect(Buffer.from(keyIdOf(fixed)).toString('hex')).toMatchInlineSnapshot(`"f15951b5c8f8df487f33b2cc266f3b43"`);
    expect(rootFingerprint(fixed)).toMatchInlineSnapshot(`"fk-root-6fmv-dnoi-7dpu-q7zt-wlgc-m3z3-inxw-vgxg"`);
  });

  it('differ between keys and are refused for bad ones', () => {
    expect(keyIdOf(key.publicKey)).not.toEqual(keyIdOf(fixed));
    expect(() => keyIdOf({ algorithm: 9, bytes: fixed.bytes })).toThrow(SignatureInvalid);
    expect(() => keyIdOf({ algorithm: ed25519, bytes: new Uint8Array(33) })).toThrow(SignatureInvalid);
  });

  it('survive being typed with capitals and spaces around', () => {
    const typed = `  ${rootFingerprint(fixed).toUpperCase()}\n`;
    expect(parseRootFingerprint(typed)).toBe(rootFingerprint(fixed));
    expect(hasRootFingerprint(fixed, parseRootFingerprint(typed))).toBe(true);
    expect(hasRootFingerprint(key.publicKey, parseRootFingerprint(typed))).toBe(false);
  });

  it.each([
    '',
    'fk-root-',
    'fk-root-abcd',
    `${rootFingerprint(fixed)}-aaaa`,
    rootFingerprint(fixed).slice(0, -1),
    rootFingerprint(fixed).replace(/.$/, '1'),
  ])('are refused when malformed: %j', (typed) =>
    expect(() => parseRootFingerprint(typed)).toThrow(FingerprintMalformed),
  );
});

describe('signing key files', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'failkit-signing-'));
  });
  afterAll(() => rm(folder, { recursive: true }));

  it('keep the key, with mode 0600, and are never overwritten', async () => {
    const path = join(folder, 'agent.pem');
    const created = await createSigningKeyFile(path);
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    const loaded = await loadSigningKeyFile(path);
    expect(loaded.publicKey).toEqual(created.publicKey);
    expect(() => verifySignature(created.publicKey, domain, message, loaded.sign(domain, message))).not.toThrow();
    await expect(createSigningKeyFile(path)).rejects.toBeInstanceOf(KeyFileUnusable);
    expect((await loadSigningKeyFile(path)).publicKey).toEqual(created.publicKey);
  });

  it('are refused when group or world may read them', async () => {
    const path = join(folder, 'open.pem');
    await createSigningKeyFile(path);
    await chmod(path, 0o640);
    await expect(loadSigningKeyFile(path)).rejects.toThrow(`run chmod 600 ${path}`);
  });

  it('are refused with another kind of key, or none', async () => {
    const [wrongKind, garbage] = [join(folder, 'secp256k1.pem'), join(folder, 'garbage.pem')];
    const other = generateKeyPairSync('ec', { namedCurve: 'secp256k1' }).privateKey.export({
      type: 'pkcs8',
      format: 'pem',
    });
    await writeFile(wrongKind, other, { mode: 0o600 });
    await writeFile(garbage, 'hello', { mode: 0o600 });
    await expect(loadSigningKeyFile(wrongKind)).rejects.toThrow(/holds a key of type ec/);
    await expect(loadSigningKeyFile(garbage)).rejects.toThrow(KeyFileUnusable);
  });

  it('can be used by openssl, which agrees on the signature', async () => {
    const path = join(folder, 'openssl.pem');
    const own = await createSigningKeyFile(path);
    const [input, output] = [join(folder, 'signed'), join(folder, 'signature')];
    await writeFile(input, Buffer.concat([Buffer.from(`${domain}\0\x01`), message]));
    await promisify(execFile)('openssl', ['pkeyutl', '-sign', '-inkey', path, '-rawin', '-in', input, '-out', output]);
    expect(new Uint8Array(await readFile(output))).toEqual(new Uint8Array(own.sign(domain, message)));
  });

  it('never show the key when printed', () => {
    expect(JSON.stringify({ key })).toBe('{"key":"[redacted]"}');
  });
});
