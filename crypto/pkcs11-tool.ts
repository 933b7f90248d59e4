import { spawn } from 'node:child_process';
import { text } from 'node:stream/consumers';
import { KeyDenied, KeyNotFound, KeyRefused, KeyServiceUnavailable, KeyWrapMismatch, KeyWrong } from './errors.ts';
import { saidBy } from './json-request.ts';
import type { Secret } from './redacted.ts';

/**
 * One decryption by OpenSC's pkcs11-tool, in a process of its own: a vendor's library is loaded there, and can neither block nor crash
 * the agent, nor read its memory.
 */

const mechanisms = {
  sha256: ['--hash-algorithm', 'SHA256', '--mgf', 'MGF1-SHA256'],
  sha1: ['--hash-algorithm', 'SHA-1', '--mgf', 'MGF1-SHA1'],
} as const;
export type OaepHash = keyof typeof mechanisms;

export interface Pkcs11Token {
  /** The vendor's library, such as /usr/lib/softhsm/libsofthsm2.so. */
  readonly module: string;
  readonly label: string;
  /** CKA_ID of the private key, in hex digits. */
  readonly keyId: string;
  readonly pin: Secret;
}

const outputBytesMax = 64 * 1024;
/** Of the shell, for a program that is not there. */
const exitNotFound = 127;
/** Reads the PIN from a pipe: in the arguments everybody would see it. */
const withPin = 'IFS= read -r FAILKIT_PIN <&3 && export FAILKIT_PIN && exec "$@" 3<&-';

interface TokenRequest {
  readonly token: Pkcs11Token;
  readonly oaepHash: OaepHash;
  readonly timeoutMs: number;
}

/** The caller zeroes what it gets. */
export async function decryptOnToken(
  { token, oaepHash, timeoutMs }: TokenRequest,
  ciphertext: Uint8Array,
  signal: AbortSignal,
): Promise<Uint8Array> {
  const timeout = AbortSignal.timeout(timeoutMs);
  const { module, label, keyId } = token;
  const args = [
    ...['pkcs11-tool', '--module', module, '--token-label', label, '--login', '--pin', 'env:FAILKIT_PIN'],
    ...['--decrypt', '--id', keyId, '--mechanism', 'RSA-PKCS-OAEP', ...mechanisms[oaepHash]],
  ];
  const child = spawn('sh', ['-c', withPin, 'sh', ...args], {
    stdio: ['pipe', 'pipe', 'pipe', 'pipe'],
    signal: AbortSignal.any([signal, timeout]),
    killSignal: 'SIGKILL',
  });
  const [input, output, errors, pin] = child.stdio;
  const ended = new Promise<number | null>((resolve) => {
    child.once('error', () => resolve(null)).once('close', resolve);
  });
  for (const stream of [input, pin]) stream?.on('error', () => undefined);
  input?.end(ciphertext);
  if (pin !== null && pin !== undefined && 'end' in pin) pin.end(`${token.pin.reveal()}\n`);
  const said = errors === null ? Promise.resolve('') : text(errors).catch(() => '');
  const decrypted = await collect(output);
  const exitCode = await ended;
  if (exitCode === 0 && !signal.aborted) return decrypted;
  decrypted.fill(0);
  signal.throwIfAborted();
  if (timeout.aborted) throw new KeyServiceUnavailable(`token ${label} gave no answer within ${timeoutMs} ms`);
  throw tokenError(exitCode, await said, token);
}

async function collect(output: NodeJS.ReadableStream | null): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  try {
    for await (const chunk of (output ?? []) as AsyncIterable<Uint8Array>) {
      bytes += chunk.length;
      if (bytes <= outputBytesMax) chunks.push(chunk);
    }
  } catch {
    // Killed: how it ended says why.
  }
  const all = Uint8Array.from(Buffer.concat(chunks));
  for (const chunk of chunks) chunk.fill(0);
  return all;
}

/** Return values of PKCS#11 (docs.oasis-open.org/pkcs11, §5.1), which the tool prints by name. */
const named: Readonly<Record<string, typeof KeyRefused | typeof KeyServiceUnavailable>> = {
  CKR_PIN_INCORRECT: KeyDenied,
  CKR_PIN_INVALID: KeyDenied,
  CKR_PIN_LEN_RANGE: KeyDenied,
  CKR_PIN_EXPIRED: KeyDenied,
  CKR_PIN_LOCKED: KeyDenied,
  CKR_USER_NOT_LOGGED_IN: KeyDenied,
  CKR_USER_PIN_NOT_INITIALIZED: KeyDenied,
  CKR_ENCRYPTED_DATA_INVALID: KeyWrapMismatch,
  CKR_ENCRYPTED_DATA_LEN_RANGE: KeyWrapMismatch,
  CKR_DATA_INVALID: KeyWrapMismatch,
  /** What SoftHSM and some others say of a padding that is wrong. */
  CKR_GENERAL_ERROR: KeyWrapMismatch,
  CKR_FUNCTION_FAILED: KeyWrapMismatch,
  CKR_ARGUMENTS_BAD: KeyWrong,
  CKR_MECHANISM_INVALID: KeyWrong,
  CKR_MECHANISM_PARAM_INVALID: KeyWrong,
  CKR_KEY_FUNCTION_NOT_PERMITTED: KeyWrong,
  CKR_KEY_TYPE_INCONSISTENT: KeyWrong,
  CKR_DEVICE_ERROR: KeyServiceUnavailable,
  CKR_DEVICE_MEMORY: KeyServiceUnavailable,
  CKR_DEVICE_REMOVED: KeyServiceUnavailable,
  CKR_TOKEN_NOT_PRESENT: KeyServiceUnavailable,
  CKR_SESSION_COUNT: KeyServiceUnavailable,
  CKR_HOST_MEMORY: KeyServiceUnavailable,
};

const advice =
  'check keys.module, keys.token, keys.tokenKeyId and keys.pin; KEY_WRONG: set keys.oaepHash to sha1 if the token knows no other';

function tokenError(exitCode: number | null, said: string, { label, keyId, module }: Pkcs11Token): Error {
  if (exitCode === exitNotFound || exitCode === null)
    return new KeyRefused('pkcs11-tool is not on this host: install opensc');
  const [code = ''] = /CKR_[A-Z_]+/.exec(said) ?? [];
  const about = `key ${keyId} on token ${label} of ${module}`;
  const Named = Object.hasOwn(named, code) ? named[code] : undefined;
  if (Named !== undefined) return new Named(`${about} did not open the wrap (${code}): ${advice}`);
  if (code !== '') return new KeyRefused(`${about} did not open the wrap (${code}): ${advice}`);
  const lastLine = said.trim().split('\n').at(-1) ?? '';
  return new KeyNotFound(`${about} is not there${saidBy(lastLine)}. So ${advice}`);
}
