import { bindKey, openBoundKey } from './bound-key.ts';
import type { DataKey } from './data-key.ts';
import { KeyRefused, KeyServiceUnavailable, KeyWrapMismatch } from './errors.ts';
import { generateWrapped } from './generate-wrapped.ts';
import type { JsonConnection } from './json-request.ts';
import { askJson, member, textMember } from './json-request.ts';
import { encodeKeyContext } from './key-context.ts';
import type { KeyContext, KeyProvider, WrappedKey } from './key-provider.ts';
import { errorFromVault } from './vault-transit-errors.ts';
import { type VaultLogin, VaultSession } from './vault-transit-session.ts';

/** The transit engine of HashiCorp Vault and of OpenBao: developer.hashicorp.com/vault/api-docs/secret/transit */

const provider = 'vault-transit';
const timeoutMsDefault = 10_000;
/** Vault's own notation; base64 in its one canonical form, or altered bits could hide in its padding. */
const ciphertextForm = /^vault:v[1-9]\d{0,8}:([A-Za-z0-9+/]+={0,2})$/;

export interface VaultTransitOptions {
  /** `https://vault.example.net:8200` */
  readonly address: string;
  /** Where the transit engine is mounted. */
  readonly mount: string;
  readonly key: string;
  /** Of Vault Enterprise, HCP Vault and OpenBao; null: the root namespace. */
  readonly namespace: string | null;
  readonly login: VaultLogin;
  readonly httpsAgent: JsonConnection['httpsAgent'];
  readonly timeoutMs?: number;
}

type Operation = 'encrypt' | 'decrypt';

/**
 * Data keys are made here and encrypted by Vault, so an agent needs `update` on `MOUNT/encrypt/KEY` alone. One request each,
 * besides a login where the token has ended; never retried here (see with-key-retry.ts).
 */
export function vaultTransit(options: VaultTransitOptions): KeyProvider {
  const connection = { httpsAgent: options.httpsAgent, timeoutMs: options.timeoutMs ?? timeoutMsDefault };
  const session = new VaultSession(options, connection);
  const keyId = `${options.mount}/${options.key}`;
  const ask = (operation: Operation, body: object, signal: AbortSignal) =>
    askTransit(options, session, connection, operation, body, signal);
  const wrap = async (key: DataKey, context: KeyContext, signal: AbortSignal): Promise<WrappedKey> => {
    signal.throwIfAborted();
    const bound = bindKey(key, context);
    const plaintext = base64(bound);
    bound.fill(0);
    const data = await ask('encrypt', { plaintext, associated_data: base64(encodeKeyContext(context)) }, signal);
    const ciphertext = textMember(data, 'ciphertext');
    if (!ciphertextForm.test(ciphertext))
      throw new KeyServiceUnavailable(`Vault answered encrypt with key ${keyId} without a ciphertext`);
    return { provider, keyId, blob: Buffer.from(ciphertext) };
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
      const associated_data = base64(encodeKeyContext(context));
      const data = await ask('decrypt', { ciphertext: ciphertextOf(wrapped), associated_data }, signal);
      return openBoundKey(Buffer.from(textMember(data, 'plaintext'), 'base64'), context, `Vault's key ${keyId}`);
    },
  };
}

/** The `data` of the answer. A token that ended meanwhile is replaced once. */
async function askTransit(
  { address, mount, key }: VaultTransitOptions,
  session: VaultSession,
  connection: JsonConnection,
  operation: Operation,
  body: object,
  signal: AbortSignal,
): Promise<unknown> {
  const what = `${operation} with key ${mount}/${key}`;
  const url = `${address}/v1/${pathOf(mount)}/${operation}/${encodeURIComponent(key)}`;
  for (let mayLogIn = session.canLogIn; ; mayLogIn = false) {
    const { headers, isFresh } = await session.headers(signal);
    const answer = await askJson(connection, { service: 'Vault', what, method: 'POST', url, headers, body }, signal);
    if (answer.status === 200) return member(answer.json, 'data');
    if (answer.status !== 403 || !mayLogIn || isFresh) throw errorFromVault(answer, what);
    session.forget();
  }
}

function ciphertextOf({ provider: given, keyId, blob }: WrappedKey): string {
  if (given !== provider) throw new KeyRefused(`Vault can't unwrap what ${given} wrapped: use the ${given} provider`);
  const text = Buffer.from(blob).toString('latin1');
  const [, encoded] = ciphertextForm.exec(text) ?? [];
  if (encoded === undefined || Buffer.from(encoded, 'base64').toString('base64') !== encoded)
    throw new KeyWrapMismatch(`the wrap of ${keyId} is no ciphertext of Vault: it was altered`);
  return text;
}

/** A mount may have slashes in it. */
function pathOf(mount: string): string {
  return mount.split('/').map(encodeURIComponent).join('/');
}

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('base64');
}
