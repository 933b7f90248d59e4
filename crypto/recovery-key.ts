import {
  constants,
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPair,
  type KeyObject,
  privateDecrypt,
  publicEncrypt,
  timingSafeEqual,
} from 'node:crypto';
import { promisify } from 'node:util';
import { DataKey, dataKeyBytes } from './data-key.ts';
import { KeyFileUnusable, KeyRefused } from './errors.ts';
import { generateWrapped } from './generate-wrapped.ts';
import { describeKeyContext, encodeKeyContext } from './key-context.ts';
import type { KeyContext, KeyProvider, WrappedKey } from './key-provider.ts';

const provider = 'recovery-key';
const modulusBitsNew = 3072;
const modulusBitsMin = 3072;
/** Larger keys cost seconds per operation and gain nothing; the bound keeps a forged record from stalling a restore. */
const modulusBitsMax = 8192;
const publicExponentMin = 65537n;

export interface RecoveryKeyPair {
  /** SubjectPublicKeyInfo, DER. Public: it goes into the configuration and into the replica. */
  readonly publicKey: Uint8Array;
  /** PKCS#8, unencrypted: it goes into the recovery kit, once, and is kept nowhere else. Zero it after use. */
  readonly privatePem: Uint8Array;
}

/** Makes an RSA-3072 pair; takes about a second. */
export async function generateRecoveryKey(): Promise<RecoveryKeyPair> {
  const { publicKey, privateKey } = await promisify(generateKeyPair)('rsa', {
    modulusLength: modulusBitsNew,
    publicKeyEncoding: { type: 'spki', format: 'der' },
    privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
  });
  return { publicKey: new Uint8Array(publicKey), privatePem: Buffer.from(privateKey) };
}

/** Wraps only, as the agent does every day. Throws KeyFileUnusable for anything but an RSA key of 3072 to 8192 bits in SPKI DER. */
export function recoveryWrapper(publicKeyDer: Uint8Array): KeyProvider {
  return recoveryProvider(parsePublicKey(publicKeyDer), null);
}

/** Wraps and unwraps. Throws KeyFileUnusable for anything but an unencrypted RSA private key of 3072 to 8192 bits in PEM. */
export function recoveryKeyFromPem(privatePem: Uint8Array): KeyProvider {
  const privateKey = parsePrivateKey(privatePem);
  return recoveryProvider(createPublicKey(privateKey), privateKey);
}

/**
 * Proves, when a kit is made or drilled, that its private key opens what the public key in use wraps.
 * Throws KeyRefused when it doesn't; the data key is a random one that wraps nothing else.
 */
export async function testRecoveryWrap(
  publicKeyDer: Uint8Array,
  privatePem: Uint8Array,
  context: KeyContext,
  signal: AbortSignal,
): Promise<void> {
  const made = await recoveryWrapper(publicKeyDer).generateDataKey(context, signal);
  using wrappedKey = made.key;
  using unwrappedKey = await recoveryKeyFromPem(privatePem).unwrap(made.wrapped, context, signal);
  if (!timingSafeEqual(wrappedKey.bytes, unwrappedKey.bytes))
    throw new KeyRefused(
      'the recovery key gave back another data key than it wrapped: make a new recovery kit, and report this',
    );
}

function recoveryProvider(publicKey: KeyObject, privateKey: KeyObject | null): KeyProvider {
  const keyId = keyIdOfRecoveryKey(publicKey);
  const wrapped = (key: DataKey, context: KeyContext): WrappedKey => ({
    provider,
    keyId,
    blob: encrypt(publicKey, key, context),
  });
  return {
    provider,
    keyId,
    async generateDataKey(context, signal) {
      return await generateWrapped((key) => wrapped(key, context), signal);
    },
    async wrap(key, context, signal) {
      signal.throwIfAborted();
      return wrapped(key, context);
    },
    async unwrap(given, context, signal) {
      signal.throwIfAborted();
      checkWrap(given, keyId);
      if (privateKey === null)
        throw new KeyRefused(
          `only the public half of ${keyId} is here: the private key from the recovery kit is needed to unwrap`,
        );
      return decrypt(privateKey, given, context);
    },
  };
}

/** The blob is the bare RSA ciphertext, so that `openssl pkeyutl` opens it too. */
function encrypt(publicKey: KeyObject, key: DataKey, context: KeyContext): Uint8Array {
  return new Uint8Array(publicEncrypt(oaep(publicKey, context), key.bytes));
}

function decrypt(privateKey: KeyObject, { keyId, blob }: WrappedKey, context: KeyContext): DataKey {
  const parameters = oaep(privateKey, context);
  let opened: Buffer;
  try {
    opened = privateDecrypt(parameters, blob);
  } catch (cause) {
    throw new KeyRefused(
      `${keyId} can't unwrap this data key: it was altered, or made for something other than ${describeKeyContext(context)}`,
      { cause },
    );
  }
  try {
    if (opened.length === dataKeyBytes) return new DataKey(new Uint8Array(opened));
    throw new KeyRefused(`what ${keyId} unwrapped has ${opened.length} bytes, not ${dataKeyBytes}: it is no data key`);
  } finally {
    opened.fill(0);
  }
}

/** SHA-256 for the label and for MGF1. PKCS#1 v1.5, whose padding checks have leaked for 25 years, is never used. */
function oaep(key: KeyObject, context: KeyContext) {
  return { key, padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: 'sha256', oaepLabel: encodeKeyContext(context) };
}

function checkWrap(given: WrappedKey, keyId: string): void {
  if (given.provider !== provider)
    throw new KeyRefused(
      `a recovery key can't unwrap what ${given.provider} wrapped: use the ${given.provider} provider`,
    );
  if (given.keyId !== keyId)
    throw new KeyRefused(
      `data key was wrapped for ${given.keyId}, but this recovery key is ${keyId}: use the kit of ${given.keyId}`,
    );
}

function parsePublicKey(der: Uint8Array): KeyObject {
  let key: KeyObject;
  try {
    key = createPublicKey({ key: Buffer.from(der), format: 'der', type: 'spki' });
  } catch (cause) {
    throw new KeyFileUnusable(
      'the recovery public key is not a SubjectPublicKeyInfo in DER: copy it again from the recovery kit',
      { cause },
    );
  }
  checkStrength(key);
  // The key id is a hash of these bytes, so a second encoding of one key must not pass for another key.
  if (!spkiOf(key).equals(der))
    throw new KeyFileUnusable('the recovery public key is not canonical DER: copy it again from the recovery kit');
  return key;
}

function parsePrivateKey(pem: Uint8Array): KeyObject {
  let key: KeyObject;
  try {
    key = createPrivateKey({ key: Buffer.from(pem), format: 'pem' });
  } catch (cause) {
    throw new KeyFileUnusable(
      'the recovery key is not an unencrypted private key in PEM: check the file; openssl pkey -in FILE -out PLAIN removes a passphrase',
      { cause },
    );
  }
  checkStrength(key);
  return key;
}

function checkStrength(key: KeyObject): void {
  if (key.asymmetricKeyType !== 'rsa')
    throw new KeyFileUnusable(`a recovery key is an RSA key, not one of type ${key.asymmetricKeyType}`);
  const { modulusLength = 0, publicExponent = 0n } = key.asymmetricKeyDetails ?? {};
  if (modulusLength < modulusBitsMin || modulusLength > modulusBitsMax)
    throw new KeyFileUnusable(
      `a recovery key has ${modulusBitsMin} to ${modulusBitsMax} bits, not ${modulusLength}: make one with failkit init`,
    );
  if (publicExponent < publicExponentMin)
    throw new KeyFileUnusable(
      `a recovery key has a public exponent of at least ${publicExponentMin}, not ${publicExponent}`,
    );
}

function keyIdOfRecoveryKey(publicKey: KeyObject): string {
  return `recovery:${createHash('sha256').update(spkiOf(publicKey)).digest('hex').slice(0, 16)}`;
}

function spkiOf(publicKey: KeyObject): Buffer {
  return publicKey.export({ type: 'spki', format: 'der' });
}
