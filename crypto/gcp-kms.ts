import { DataKey, dataKeyBytes } from './data-key.ts';
import { KeyDenied, KeyRefused, KeyServiceUnavailable, KeyWrapMismatch } from './errors.ts';
import { errorFromGcpKms } from './gcp-kms-errors.ts';
import { generateWrapped } from './generate-wrapped.ts';
import { askJson, isUntrustedCertificate, type JsonConnection, member, saidBy, textMember } from './json-request.ts';
import { encodeKeyContext } from './key-context.ts';
import type { KeyContext, KeyProvider, WrappedKey } from './key-provider.ts';

/** Google Cloud KMS: cloud.google.com/kms/docs/reference/rest/v1/projects.locations.keyRings.cryptoKeys/encrypt and …/decrypt */

const provider = 'gcp-kms';
const timeoutMsDefault = 10_000;

export interface GcpKmsOptions {
  /** `projects/P/locations/L/keyRings/R/cryptoKeys/K`, a symmetric key. */
  readonly key: string;
  /** `https://cloudkms.googleapis.com` */
  readonly endpoint: string;
  /** Headers that say who asks; what it throws is about credentials or the network. */
  readonly authorization: (url: string) => Promise<Readonly<Record<string, string>>>;
  readonly httpsAgent: JsonConnection['httpsAgent'];
  readonly timeoutMs?: number;
}

type Operation = 'encrypt' | 'decrypt';

/**
 * Data keys are made here and encrypted by KMS, bound to the key context as additional authenticated data. Every byte string goes with
 * its CRC-32C in both directions, as Google asks of callers: KMS refuses what was altered on its way there, we what was on its way back.
 */
export function gcpKms(options: GcpKmsOptions): KeyProvider {
  const { key: keyId } = options;
  const wrap = async (key: DataKey, context: KeyContext, signal: AbortSignal): Promise<WrappedKey> => {
    signal.throwIfAborted();
    const body = {
      ...checked('additionalAuthenticatedData', encodeKeyContext(context)),
      ...checked('plaintext', key.bytes),
    };
    const answer = await ask(options, 'encrypt', body, signal);
    for (const verified of ['verifiedPlaintextCrc32c', 'verifiedAdditionalAuthenticatedDataCrc32c'])
      if (member(answer, verified) !== true) throw alteredOnTheWay(keyId, 'encrypt');
    return { provider, keyId, blob: checkedField(answer, 'ciphertext', keyId, 'encrypt') };
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
      const additional = checked('additionalAuthenticatedData', encodeKeyContext(context));
      checkWrap(wrapped);
      const answer = await ask(options, 'decrypt', { ...additional, ...checked('ciphertext', wrapped.blob) }, signal);
      const plaintext = checkedField(answer, 'plaintext', keyId, 'decrypt');
      if (plaintext.length === dataKeyBytes) return new DataKey(plaintext);
      plaintext.fill(0);
      throw new KeyRefused(`what Google Cloud KMS unwrapped with ${keyId} is no data key of ${dataKeyBytes} bytes`);
    },
  };
}

async function ask(options: GcpKmsOptions, operation: Operation, body: object, signal: AbortSignal): Promise<unknown> {
  const { key, endpoint, httpsAgent, timeoutMs = timeoutMsDefault } = options;
  const what = `${operation} with key ${key}`;
  const url = `${endpoint}/v1/${key.split('/').map(encodeURIComponent).join('/')}:${operation}`;
  const headers = await authorized(options, url, what, signal);
  const request = { service: 'Google Cloud KMS', what, method: 'POST' as const, url, headers, body };
  const answer = await askJson({ httpsAgent, timeoutMs }, request, signal);
  if (answer.status === 200) return answer.json;
  throw errorFromGcpKms(answer, operation, what);
}

/** Google's library heeds no signal: so the caller does not wait for it once cancelled or late. */
async function authorized(
  { authorization, timeoutMs = timeoutMsDefault }: GcpKmsOptions,
  url: string,
  what: string,
  signal: AbortSignal,
): Promise<Readonly<Record<string, string>>> {
  const timeout = AbortSignal.timeout(timeoutMs);
  const late = Promise.withResolvers<never>();
  const either = AbortSignal.any([signal, timeout]);
  const giveUp = () => late.reject(either.reason);
  either.addEventListener('abort', giveUp, { once: true });
  try {
    return await Promise.race([authorization(url), late.promise]);
  } catch (error) {
    signal.throwIfAborted();
    if (timeout.aborted) throw new KeyServiceUnavailable(`no token for ${what} within ${timeoutMs} ms`);
    throw tokenError(error, what);
  } finally {
    either.removeEventListener('abort', giveUp);
  }
}

/** What the library got from the network carries Node's code or an HTTP status; the rest is about the credentials. */
function tokenError(thrown: unknown, what: string): KeyDenied | KeyServiceUnavailable {
  const inner = thrown instanceof Error ? thrown : new Error('no reason was given');
  const code = String(member(inner, 'code') ?? '');
  const status = Number(member(member(inner, 'response'), 'status') ?? 0);
  const text = `no token for ${what}${saidBy(inner.message)}`;
  const isAway = /^E[A-Z]+$/.test(code) && !['ENOENT', 'EACCES', 'EISDIR'].includes(code);
  if (isAway || isUntrustedCertificate(code) || status >= 500) return new KeyServiceUnavailable(text);
  return new KeyDenied(
    `${text}. Check the credentials: GOOGLE_APPLICATION_CREDENTIALS, the key, or this host's own identity`,
  );
}

function checkWrap({ provider: given, keyId, blob }: WrappedKey): void {
  if (given !== provider)
    throw new KeyRefused(`Google Cloud KMS can't unwrap what ${given} wrapped: use the ${given} provider`);
  if (blob.length === 0) throw new KeyWrapMismatch(`the wrap of ${keyId} is empty: it was altered`);
}

/** A field and its checksum, which JSON carries as text because it is an int64. */
function checked(name: string, bytes: Uint8Array): Readonly<Record<string, string>> {
  const encoded = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('base64');
  return { [name]: encoded, [`${name}Crc32c`]: String(crc32c(bytes)) };
}

function checkedField(answer: unknown, name: string, keyId: string, operation: Operation): Uint8Array {
  const bytes = Uint8Array.from(Buffer.from(textMember(answer, name), 'base64'));
  const crc = member(answer, `${name}Crc32c`);
  if (bytes.length === 0)
    throw new KeyServiceUnavailable(`Google Cloud KMS answered ${operation} with key ${keyId} without a ${name}`);
  if (String(crc) === String(crc32c(bytes))) return bytes;
  bytes.fill(0);
  throw alteredOnTheWay(keyId, operation);
}

function alteredOnTheWay(keyId: string, operation: Operation): KeyServiceUnavailable {
  return new KeyServiceUnavailable(
    `the answer of Google Cloud KMS to ${operation} with key ${keyId} was altered on its way, or lacks a checksum`,
  );
}

/** CRC-32C (Castagnoli), bit by bit: for the few dozen bytes of a wrap no table is worth it. */
function crc32c(bytes: Uint8Array): number {
  let crc = 0xffff_ffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ ((crc & 1) === 1 ? 0x82f6_3b78 : 0);
  }
  return ~crc >>> 0;
}
