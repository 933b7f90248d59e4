import { type ClientRequest, request as httpRequest, type IncomingMessage } from 'node:http';
import { type Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import { KeyServiceUnavailable, KeyServiceUntrusted } from './errors.ts';

/** One JSON request to a key service whose API is that small; those with an SDK that we use don't come here. */

export interface JsonRequest {
  /** How messages name the service. */
  readonly service: string;
  /** What was asked, for messages: `encrypt with key …`. */
  readonly what: string;
  readonly method: 'GET' | 'POST';
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  /** Left out: no body. */
  readonly body?: object;
}

export interface JsonAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  /** Null where the body is no JSON. */
  readonly json: unknown;
}

export interface JsonConnection {
  /** With a private CA or a proxy; null: Node's own. */
  readonly httpsAgent: HttpsAgent | null;
  /** Bound on one request. */
  readonly timeoutMs: number;
}

/** No answer of a key service is near it. */
const answerBytesMax = 1024 * 1024;

/**
 * No redirects, no retries. Throws the signal's reason, KeyServiceUnavailable or KeyServiceUntrusted; every status is an
 * answer. Errors hold neither what was sent nor what was received.
 */
export async function askJson(
  connection: JsonConnection,
  request: JsonRequest,
  signal: AbortSignal,
): Promise<JsonAnswer> {
  signal.throwIfAborted();
  const timeout = AbortSignal.timeout(connection.timeoutMs);
  const either = AbortSignal.any([signal, timeout]);
  try {
    return await exchange(open(connection, request, either), request);
  } catch (cause) {
    signal.throwIfAborted();
    throw networkError(cause, request, timeout.aborted ? connection.timeoutMs : null);
  }
}

function open({ httpsAgent }: JsonConnection, request: JsonRequest, signal: AbortSignal): ClientRequest {
  const { method, url, body } = request;
  const headers = { ...(body && { 'content-type': 'application/json' }), ...request.headers };
  return url.startsWith('https:')
    ? httpsRequest(url, { method, headers, signal, ...(httpsAgent && { agent: httpsAgent }) })
    : httpRequest(url, { method, headers, signal });
}

async function exchange(outgoing: ClientRequest, { body }: JsonRequest): Promise<JsonAnswer> {
  const answer = await new Promise<IncomingMessage>((resolve, reject) => {
    outgoing.once('response', resolve).once('error', reject);
    outgoing.end(body && JSON.stringify(body));
  });
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of answer as AsyncIterable<Uint8Array>) {
    bytes += chunk.length;
    if (bytes > answerBytesMax) throw new Error(`the answer has more than ${answerBytesMax} bytes`);
    chunks.push(chunk);
  }
  const json = parsed(Buffer.concat(chunks));
  for (const chunk of chunks) chunk.fill(0);
  return { status: answer.statusCode ?? 0, headers: answer.headers, json };
}

function parsed(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString('utf8'));
  } catch {
    // A parser's error quotes what it could not parse, and that may be a key.
    return null;
  } finally {
    bytes.fill(0);
  }
}

function networkError(
  thrown: unknown,
  { service, what, url }: JsonRequest,
  lateMs: number | null,
): KeyServiceUnavailable | KeyServiceUntrusted {
  const cause = thrown instanceof Error ? new Error(thrown.message) : undefined;
  const code = thrown instanceof Error && 'code' in thrown ? String(thrown.code) : 'no answer';
  const asked = `${service} at ${new URL(url).host}`;
  if (lateMs !== null) return new KeyServiceUnavailable(`${asked} gave no answer to ${what} within ${lateMs} ms`);
  if (isUntrustedCertificate(code))
    return new KeyServiceUntrusted(
      `${asked} is not trusted (${code}): name its CA as caFile, check this host's clock, or find out who answers there`,
      { cause },
    );
  return new KeyServiceUnavailable(
    `${asked} can't be reached for ${what} (${code}): check address, network and proxy`,
    { cause },
  );
}

/** OpenSSL's verification results as Node names them (nodejs.org/api/tls.html#x509-certificate-error-codes). */
export function isUntrustedCertificate(code: string): boolean {
  return (
    /^(UNABLE_TO_(GET|VERIFY|DECRYPT|DECODE)_|CERT_|DEPTH_ZERO_|SELF_SIGNED_|INVALID_CA$|INVALID_PURPOSE$)/.test(
      code,
    ) ||
    code === 'HOSTNAME_MISMATCH' ||
    code === 'ERR_TLS_CERT_ALTNAME_INVALID'
  );
}

/** A member of what was parsed; undefined where there is none. */
export function member(of: unknown, name: string): unknown {
  return typeof of === 'object' && of !== null && Object.hasOwn(of, name) ? Reflect.get(of, name) : undefined;
}

export function textMember(of: unknown, name: string): string {
  const value = member(of, name);
  return typeof value === 'string' ? value : '';
}

const saidCharsMax = 300;

/** What a service says, as the end of a line of our own: printable and short. */
export function saidBy(text: string): string {
  const printable = text.replace(/[^\x20-\x7e]+/g, ' ').trim();
  return printable === '' ? '' : `: ${printable.slice(0, saidCharsMax)}`;
}

/** Tokens are good for an hour, and some services allow no more than minutes of difference. */
const clockSkewMsMin = 5 * 60 * 1000;

/** Whether the Date of an answer says that this host's clock is the reason of a refusal. */
export function clockIsOff({ date }: JsonAnswer['headers']): boolean {
  return Math.abs(Date.parse(String(date ?? '')) - Date.now()) > clockSkewMsMin;
}
