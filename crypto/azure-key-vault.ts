import { constants, createPublicKey, type KeyObject, publicEncrypt } from 'node:crypto';
import { errorFromKeyVault } from './azure-key-vault-errors.ts';
import { bindKey, openBoundKey } from './bound-key.ts';
import type { DataKey } from './data-key.ts';
import { KeyDenied, KeyFileUnusable, KeyRefused, KeyServiceUnavailable, KeyWrapMismatch, KeyWrong } from './errors.ts';
import { generateWrapped } from './generate-wrapped.ts';
import { askJson, type JsonConnection, saidBy, textMember } from './json-request.ts';
import type { KeyContext, KeyProvider, WrappedKey } from './key-provider.ts';

/** Azure Key Vault and Managed HSM: learn.microsoft.com/rest/api/keyvault/keys/wrap-key and …/unwrap-key */

const provider = 'azure-key-vault';
const timeoutMsDefault = 10_000;
const apiVersion = '7.4';
const alg = 'RSA-OAEP-256';
const modulusBitsMin = 2048;
/** `https://NAME.vault.azure.net/keys/KEY/VERSION`; only a wrap has to name the version. */
const keyIdForm = /^(https?:\/\/[^/]+)\/keys\/([0-9A-Za-z-]+)(?:\/([0-9a-f]{32}))?$/;

export interface KeyVaultOptions {
  /** Identifier of an RSA key, with or without its version. */
  readonly keyId: string;
  /** The public half of that version, in PEM: wraps are then made here, and Key Vault is never asked for them. */
  readonly publicKeyPem: string | null;
  /** Another address for the vault than that in the identifier. */
  readonly endpoint: string | null;
  /** A token for Key Vault; what it throws is about credentials or the network. */
  readonly token: (signal: AbortSignal) => Promise<string>;
  readonly httpsAgent: JsonConnection['httpsAgent'];
  readonly timeoutMs?: number;
}

type Operation = 'wrapkey' | 'unwrapkey';

/**
 * RSA-OAEP with SHA-256 over the bound key, for Key Vault binds no context. Who has the public key can wrap, so a write-only agent
 * needs no permission and no request. Throws KeyFileUnusable for a public key that is none.
 */
export function azureKeyVault(options: KeyVaultOptions): KeyProvider {
  const { keyId } = options;
  const publicKey = options.publicKeyPem === null ? null : parsePublicKey(options.publicKeyPem, keyId);
  const wrap = async (key: DataKey, context: KeyContext, signal: AbortSignal): Promise<WrappedKey> => {
    signal.throwIfAborted();
    const bound = bindKey(key, context);
    try {
      if (publicKey !== null) return { provider, keyId, blob: encrypt(publicKey, bound) };
      const answer = await ask(options, keyId, 'wrapkey', bound, signal);
      const kid = textMember(answer, 'kid');
      const blob = Uint8Array.from(Buffer.from(textMember(answer, 'value'), 'base64url'));
      if (!keyIdForm.test(kid) || blob.length === 0)
        throw new KeyServiceUnavailable(`Azure Key Vault answered wrapkey with ${keyId} without a key id or a value`);
      return { provider, keyId: kid, blob };
    } finally {
      bound.fill(0);
    }
  };
  return {
    provider,
    keyId,
    wrap,
    async generateDataKey(context, signal) {
      return await generateWrapped((key) => wrap(key, context, signal), signal);
    },
    async unwrap(wrapped, context, signal) {
      signal.throwIfAborted();
      const versioned = versionOf(wrapped, keyId);
      const answer = await ask(options, versioned, 'unwrapkey', wrapped.blob, signal);
      const bound = Buffer.from(textMember(answer, 'value'), 'base64url');
      if (bound.length === 0)
        throw new KeyServiceUnavailable(`Azure Key Vault answered unwrapkey with ${versioned} without a value`);
      return openBoundKey(bound, context, `Azure Key Vault's ${versioned}`);
    },
  };
}

async function ask(
  options: KeyVaultOptions,
  keyId: string,
  operation: Operation,
  value: Uint8Array,
  signal: AbortSignal,
): Promise<unknown> {
  const { endpoint, httpsAgent, timeoutMs = timeoutMsDefault } = options;
  const what = `${operation} with ${keyId}`;
  const at = endpoint === null ? keyId : keyId.replace(/^https?:\/\/[^/]+/, endpoint);
  const url = `${at}/${operation}?api-version=${apiVersion}`;
  const headers = { authorization: `Bearer ${await tokenFor(options, what, signal)}` };
  const body = { alg, value: Buffer.from(value).toString('base64url') };
  const request = { service: 'Azure Key Vault', what, method: 'POST' as const, url, headers, body };
  const answer = await askJson({ httpsAgent, timeoutMs }, request, signal);
  if (answer.status === 200) return answer.json;
  throw errorFromKeyVault(answer, operation, what);
}

async function tokenFor(
  { token, timeoutMs = timeoutMsDefault }: KeyVaultOptions,
  what: string,
  signal: AbortSignal,
): Promise<string> {
  const timeout = AbortSignal.timeout(timeoutMs);
  try {
    return await token(AbortSignal.any([signal, timeout]));
  } catch (error) {
    signal.throwIfAborted();
    if (timeout.aborted) throw new KeyServiceUnavailable(`no token for ${what} within ${timeoutMs} ms`);
    const said = saidBy(error instanceof Error ? error.message : '');
    throw new KeyDenied(
      `no token for ${what}${said}. Check the credentials: the environment, this host's identity, or az login`,
    );
  }
}

/**
 * The version that the wrap names, of the configured key: whoever writes to the bucket must not choose the key, and may choose among
 * its versions.
 */
function versionOf({ provider: given, keyId: wrappedBy, blob }: WrappedKey, keyId: string): string {
  if (given !== provider)
    throw new KeyRefused(`Azure Key Vault can't unwrap what ${given} wrapped: use the ${given} provider`);
  const [, vault, name, version] = keyIdForm.exec(wrappedBy) ?? [];
  const [, ownVault, ownName] = keyIdForm.exec(keyId) ?? [];
  if (vault !== ownVault || name !== ownName || version === undefined)
    throw new KeyWrong(`the wrap was made by ${wrappedBy}, and ${keyId} is configured: configure the key that made it`);
  if (blob.length === 0) throw new KeyWrapMismatch(`the wrap of ${wrappedBy} is empty: it was altered`);
  return wrappedBy;
}

function encrypt(key: KeyObject, bound: Uint8Array): Uint8Array {
  const padding = constants.RSA_PKCS1_OAEP_PADDING;
  return new Uint8Array(publicEncrypt({ key, padding, oaepHash: 'sha256' }, bound));
}

function parsePublicKey(pem: string, keyId: string): KeyObject {
  if (keyIdForm.exec(keyId)?.[3] === undefined)
    throw new KeyFileUnusable(`${keyId} names no version: with a public key, give that of the very version`);
  let key: KeyObject;
  try {
    key = createPublicKey(pem);
  } catch (cause) {
    throw new KeyFileUnusable(
      `the public key for ${keyId} is no PEM: download it again, with az keyvault key download --encoding PEM`,
      { cause },
    );
  }
  const bits = key.asymmetricKeyType === 'rsa' ? (key.asymmetricKeyDetails?.modulusLength ?? 0) : 0;
  if (bits >= modulusBitsMin) return key;
  throw new KeyFileUnusable(`the public key for ${keyId} is no RSA key of ${modulusBitsMin} bits or more`);
}
