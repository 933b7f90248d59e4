import { createCipheriv, createDecipheriv, createSecretKey, type KeyObject, randomBytes } from 'node:crypto';
import { DataKey, dataKeyBytes } from './data-key.ts';
import { KeyFileUnusable, KeyRefused } from './errors.ts';
import { generateWrapped } from './generate-wrapped.ts';
import { describeKeyContext, encodeKeyContext } from './key-context.ts';
import { createKeyFile, readKeyFile } from './key-file.ts';
import type { KeyContext, KeyProvider, WrappedKey } from './key-provider.ts';
import { labelledSha256 } from './labelled-hash.ts';

const provider = 'local-key';
const localKeyBytes = 32;
const fileVersionLine = 'failkit-local-key 1';
const fileForm = /^failkit-local-key 1\nkey-id (local:[0-9a-f]{16})\nkey ([A-Za-z0-9+/]{43}=)$/;

/** blob = version (1) ‖ nonce (12) ‖ ciphertext (32) ‖ tag (16): AES-256-GCM, AAD the key context. */
const blobVersion = 1;
const nonceBytes = 12;
const tagBytes = 16;
const blobBytes = 1 + nonceBytes + dataKeyBytes + tagBytes;

/**
 * Makes a key file (mode 0600, durable) and returns its key id. Throws KeyFileUnusable if the name is taken.
 * Whoever loses this file and the recovery kit has lost every replica under it.
 */
export async function createLocalKeyFile(path: string): Promise<string> {
  const key = randomBytes(localKeyBytes);
  const text = Buffer.from(formatKeyFile(key));
  try {
    await createKeyFile(path, text);
    return keyIdOfLocalKey(key);
  } finally {
    key.fill(0);
    text.fill(0);
  }
}

/** The provider over a file made by `createLocalKeyFile`. Throws KeyFileUnusable; the key stays outside the JavaScript heap. */
export async function openLocalKey(path: string): Promise<KeyProvider> {
  const text = await readKeyFile(path);
  try {
    const key = parseKeyFile(text, path);
    const provider = localKey(createSecretKey(key), keyIdOfLocalKey(key));
    key.fill(0);
    return provider;
  } finally {
    text.fill(0);
  }
}

function localKey(keyEncryptionKey: KeyObject, keyId: string): KeyProvider {
  const wrapped = (blob: Uint8Array): WrappedKey => ({ provider, keyId, blob });
  return {
    provider,
    keyId,
    async generateDataKey(context, signal) {
      return await generateWrapped((key) => wrapped(wrap(keyEncryptionKey, key, context)), signal);
    },
    async wrap(key, context, signal) {
      signal.throwIfAborted();
      return wrapped(wrap(keyEncryptionKey, key, context));
    },
    async unwrap(given, context, signal) {
      signal.throwIfAborted();
      checkWrap(given, keyId);
      return unwrap(keyEncryptionKey, given, context);
    },
  };
}

function wrap(keyEncryptionKey: KeyObject, key: DataKey, context: KeyContext): Uint8Array {
  // Random nonces: one wrap per machine and epoch stays far below the 2^32 that NIST SP 800-38D allows.
  const nonce = randomBytes(nonceBytes);
  const cipher = createCipheriv('aes-256-gcm', keyEncryptionKey, nonce, { authTagLength: tagBytes });
  cipher.setAAD(encodeKeyContext(context));
  const sealed = [cipher.update(key.bytes), cipher.final(), cipher.getAuthTag()];
  return Buffer.concat([Uint8Array.of(blobVersion), nonce, ...sealed]);
}

function unwrap(keyEncryptionKey: KeyObject, { keyId, blob }: WrappedKey, context: KeyContext): DataKey {
  const nonce = blob.subarray(1, 1 + nonceBytes);
  const decipher = createDecipheriv('aes-256-gcm', keyEncryptionKey, nonce, { authTagLength: tagBytes });
  decipher.setAAD(encodeKeyContext(context));
  decipher.setAuthTag(blob.subarray(blobBytes - tagBytes));
  const opened = decipher.update(blob.subarray(1 + nonceBytes, blobBytes - tagBytes));
  try {
    decipher.final();
    return new DataKey(new Uint8Array(opened));
  } catch (cause) {
    throw new KeyRefused(
      `${keyId} can't unwrap this data key: it was altered, or made for something other than ${describeKeyContext(context)}`,
      { cause },
    );
  } finally {
    opened.fill(0);
  }
}

function checkWrap(given: WrappedKey, keyId: string): void {
  if (given.provider !== provider)
    throw new KeyRefused(`a local key can't unwrap what ${given.provider} wrapped: use the ${given.provider} provider`);
  if (given.keyId !== keyId)
    throw new KeyRefused(
      `data key was wrapped by ${given.keyId}, but the key file holds ${keyId}: give the file of ${given.keyId}`,
    );
  if (given.blob.length !== blobBytes || given.blob[0] !== blobVersion)
    throw new KeyRefused(
      `wrap of ${keyId} has ${given.blob.length} bytes and version ${given.blob[0]}, not ${blobBytes} and ${blobVersion}: altered, or written by a newer release`,
    );
}

function keyIdOfLocalKey(key: Uint8Array): string {
  return `local:${Buffer.from(labelledSha256('failkit/v1/local-key-id', key)).toString('hex').slice(0, 16)}`;
}

function formatKeyFile(key: Uint8Array): string {
  return `# Failkit local key. Who has this file can read every replica made under it; who loses it, and the
# recovery kit, can read none. Keep a copy offline, and never in the bucket.
${fileVersionLine}
key-id ${keyIdOfLocalKey(key)}
key ${Buffer.from(key).toString('base64')}
`;
}

/** Strict: three lines in this order, around them only comments and blank lines, and the key id must be the key's own. */
function parseKeyFile(text: Uint8Array, path: string): Uint8Array {
  const found = fileForm.exec(meaningfulLines(text));
  const [, keyId, base64] = found ?? [];
  if (keyId === undefined || base64 === undefined)
    throw new KeyFileUnusable(
      `key file ${path} is not a Failkit local key of version 1: check the path, or restore the file from your copy`,
    );
  const key = Buffer.from(base64, 'base64');
  if (key.length !== localKeyBytes || key.toString('base64') !== base64 || keyIdOfLocalKey(key) !== keyId)
    throw new KeyFileUnusable(
      `key file ${path} is damaged: its key is not the one that its key-id line names; restore it from your copy`,
    );
  return key;
}

function meaningfulLines(text: Uint8Array): string {
  const lines = Buffer.from(text).toString('utf8').split(/\r?\n/);
  return lines.filter((line) => line.trim() !== '' && !line.startsWith('#')).join('\n');
}
