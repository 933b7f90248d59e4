import { constants, createHash, createPublicKey, type KeyObject, publicEncrypt } from 'node:crypto';
import { bindKey, openBoundKey } from './bound-key.ts';
import type { DataKey } from './data-key.ts';
import { KeyDenied, KeyFileUnusable, KeyRefused, KeyWrapMismatch, KeyWrong } from './errors.ts';
import { generateWrapped } from './generate-wrapped.ts';
import type { KeyContext, KeyProvider, WrappedKey } from './key-provider.ts';
import { decryptOnToken, type OaepHash, type Pkcs11Token } from './pkcs11-tool.ts';

/** An RSA key on a hardware security module, by way of its PKCS#11 library: wraps are made here, and opened on the token. */

const provider = 'pkcs11';
const timeoutMsDefault = 30_000;
const modulusBitsMin = 2048;
/** First byte of a wrap. */
const hashBytes = { sha256: 1, sha1: 2 } as const;

export interface Pkcs11Options {
  /** Public half of the key, in PEM. */
  readonly publicKeyPem: string;
  /** For new wraps. Some tokens open SHA-1 only, which OAEP is no weaker for. */
  readonly oaepHash: OaepHash;
  /** What unwrapping needs; null: this host only wraps. */
  readonly token: Pkcs11Token | null;
  readonly timeoutMs?: number;
}

/** Throws KeyFileUnusable for a public key that is none. */
export function pkcs11(options: Pkcs11Options): KeyProvider {
  const publicKey = parsePublicKey(options.publicKeyPem);
  const keyId = keyIdOf(publicKey);
  const wrapped = (key: DataKey, context: KeyContext): WrappedKey => {
    const bound = bindKey(key, context);
    const blob = Buffer.concat(
      [[hashBytes[options.oaepHash]], encrypt(publicKey, options.oaepHash, bound)].map(Buffer.from),
    );
    bound.fill(0);
    return { provider, keyId, blob: new Uint8Array(blob) };
  };
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
      const { token, timeoutMs = timeoutMsDefault } = options;
      const oaepHash = checkWrap(given, keyId, publicKey);
      if (token === null) throw new KeyDenied(`this host has only the public half of ${keyId}: it names no token`);
      const bound = await decryptOnToken({ token, oaepHash, timeoutMs }, given.blob.subarray(1), signal);
      return openBoundKey(bound, context, `${keyId} on token ${token.label}`);
    },
  };
}

function encrypt(key: KeyObject, oaepHash: OaepHash, bound: Uint8Array): Uint8Array {
  return publicEncrypt({ key, padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash }, bound);
}

/** The hash that it was made with. Lengths are checked here: tokens say of a wrong one what they like. */
function checkWrap({ provider: given, keyId, blob }: WrappedKey, ownKeyId: string, key: KeyObject): OaepHash {
  if (given !== provider) throw new KeyRefused(`a token can't unwrap what ${given} wrapped: use the ${given} provider`);
  if (keyId !== ownKeyId)
    throw new KeyWrong(`the wrap was made by ${keyId}, and ${ownKeyId} is configured: configure the key that made it`);
  const oaepHash = blob[0] === hashBytes.sha256 ? 'sha256' : blob[0] === hashBytes.sha1 ? 'sha1' : null;
  const modulusBytes = (key.asymmetricKeyDetails?.modulusLength ?? 0) / 8;
  if (oaepHash === null || blob.length !== 1 + modulusBytes)
    throw new KeyWrapMismatch(
      `the wrap of ${keyId} is not as long as its key says, or of an unknown kind: it was altered`,
    );
  return oaepHash;
}

function parsePublicKey(pem: string): KeyObject {
  let key: KeyObject;
  try {
    key = createPublicKey(pem);
  } catch (cause) {
    throw new KeyFileUnusable('the public key of the token is no PEM: read it again with pkcs11-tool --read-object', {
      cause,
    });
  }
  const bits = key.asymmetricKeyType === 'rsa' ? (key.asymmetricKeyDetails?.modulusLength ?? 0) : 0;
  if (bits >= modulusBitsMin) return key;
  throw new KeyFileUnusable(`the public key of the token is no RSA key of ${modulusBitsMin} bits or more`);
}

/** By its content: labels and slots change when a token is restored. */
function keyIdOf(publicKey: KeyObject): string {
  const spki = publicKey.export({ type: 'spki', format: 'der' });
  return `pkcs11:${createHash('sha256').update(spki).digest('hex').slice(0, 16)}`;
}
