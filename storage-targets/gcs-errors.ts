import { skewedError, throttledError, untrustedError } from './answer-errors.ts';
import {
  AccessDenied,
  BucketNotFound,
  ChecksumRefused,
  Conflict,
  Immutable,
  ObjectExists,
  ObjectNotFound,
  QuotaExceeded,
  RangeInvalid,
  RequestRefused,
  type StorageError,
  StoreUnavailable,
  Unsupported,
} from './errors.ts';
import type { HttpAnswer } from './http-exchange.ts';
import { clockIsOff, field, isUntrusted, networkCode, said } from './network-errors.ts';

/** What a request was about, for the message. */
export interface GcsRequest {
  /** `gs://bucket/object`, or the bucket alone. */
  readonly subject: string;
  readonly doing: string;
}

/** What was asked: it decides what a status means that the store gives no reason for. */
export type Asked = 'put' | 'listing' | 'object';

/** An answer that is no success. */
export class GcsFailure extends Error {
  override readonly name = 'GcsFailure';
  readonly status: number;
  /** Empty where the answer's body names none, as that of a failed download. */
  readonly reason: string;
  readonly headers: HttpAnswer['headers'];
  readonly asked: Asked;

  constructor(asked: Asked, { status, headers }: Pick<HttpAnswer, 'status' | 'headers'>, body: string) {
    const { reason, message } = parseError(body);
    super(message);
    this.asked = asked;
    this.status = status;
    this.reason = reason;
    this.headers = headers;
  }
}

/** No token could be had for the request: it was never sent. */
export class NoToken extends Error {
  override readonly name = 'NoToken';
}

/** cloud.google.com/storage/docs/json_api/v1/status-codes: `{ error: { message, errors: [{ reason }] } }` */
function parseError(body: string): { readonly reason: string; readonly message: string } {
  let parsed: unknown = null;
  try {
    parsed = JSON.parse(body);
  } catch {
    return { reason: '', message: body };
  }
  const error = field(parsed, 'error');
  const errors = field(error, 'errors');
  const reason = field(Array.isArray(errors) ? errors[0] : undefined, 'reason');
  const message = field(error, 'message');
  return { reason: typeof reason === 'string' ? reason : '', message: typeof message === 'string' ? message : '' };
}

type Make = (text: string, because: ErrorOptions, failure: GcsFailure) => StorageError;

const denied: Make = (text, because) =>
  new AccessDenied(`${text}. Check the credentials and their roles on the bucket`, because);
const throttled: Make = (text, because, { headers }) => throttledError(text, headers['retry-after'], because);
const unavailable: Make = (text, because) => new StoreUnavailable(text, because);
const noBucket: Make = (text, because) =>
  new BucketNotFound(`${text}. Create the bucket, or correct its name`, because);
const immutable: Make = (text, because) => new Immutable(text, because);
const skewed: Make = (text, because, { headers }) => skewedError(text, headers.date, because);

const byReason: Readonly<Record<string, Make>> = {
  conditionNotMet: (text, because) => new ObjectExists(text, because),
  rateLimitExceeded: throttled,
  userRateLimitExceeded: throttled,
  quotaExceeded: throttled,
  retentionPolicyNotMet: immutable,
  objectUnderActiveHold: immutable,
  objectRetained: immutable,
  storageQuotaExceeded: (text, because) => new QuotaExceeded(text, because),
};

const byStatus: Readonly<Record<number, Make>> = {
  401: denied,
  403: denied,
  404: (text, because) => new ObjectNotFound(text, because),
  408: unavailable,
  409: (text, because) => new Conflict(text, because),
  412: (text, because) => new ObjectExists(text, because),
  416: (text, because) => new RangeInvalid(text, because),
  429: throttled,
  501: (text, because) => new Unsupported(`${text}. The store cannot do this`, because),
};

/** Names what a request failed with. Errors that are ours already pass through. */
export function gcsError(error: unknown, request: GcsRequest): unknown {
  if (!(error instanceof Error)) return error;
  const about = `${request.subject}: ${request.doing} failed`;
  if (error instanceof NoToken) return tokenError(error, about);
  if (error instanceof GcsFailure) return answerError(error, about);
  const code = networkCode(error);
  return code === null ? error : networkError(code, error.message, about);
}

function answerError(failure: GcsFailure, about: string): StorageError {
  const { status, reason } = failure;
  const text = `${about}: ${reason === '' ? '' : `${reason} `}(HTTP ${status})${said(failure.message, reason)}`;
  return makerFor(failure)(text, { cause: new Error(text) }, failure);
}

function makerFor({ asked, status, reason, headers }: GcsFailure): Make {
  if (Object.hasOwn(byReason, reason)) return byReason[reason] ?? unavailable;
  if (status === 401 && clockIsOff(headers.date)) return skewed;
  // Puts and listings need no object to be there, so what is missing is the bucket.
  if (asked !== 'object' && status === 404) return noBucket;
  // A put has nothing else that the store could find wrong than its bytes.
  if (asked === 'put' && status === 400) return (text, because) => new ChecksumRefused(text, because);
  if (status !== 501 && status >= 500) return unavailable;
  return byStatus[status] ?? ((text, because) => new RequestRefused(text, because));
}

function networkError(code: string, message: string, about: string): StorageError {
  const text = `${about}: ${code}${said(message, code)}`;
  const because = { cause: new Error(text) };
  return isUntrusted(code) ? untrustedError(text, because) : new StoreUnavailable(text, because);
}

/** The file of the credentials, or of the token that is exchanged for one. */
const unreadable: ReadonlySet<string> = new Set(['ENOENT', 'EACCES', 'EISDIR']);

/** The library copies them from Node's errors, without what else those say. */
const errno = /^E[A-Z]+$/;

/** Whoever gives out tokens may be away, distrusted, or say no; the library wraps what it got in errors of its own. */
function tokenError({ cause }: NoToken, about: string): StorageError {
  const inner = cause instanceof Error ? cause : new Error('no reason was given');
  const where = `${about}: no token`;
  for (const each of [inner, inner.cause]) {
    const code = field(each, 'code');
    if (typeof code === 'string' && (errno.test(code) || isUntrusted(code)) && !unreadable.has(code))
      return networkError(code, inner.message, where);
  }
  const status = field(field(inner, 'response'), 'status');
  const text = `${where}${said(inner.message, '')}`;
  if (typeof status === 'number' && status >= 500) return new StoreUnavailable(text, { cause: new Error(text) });
  return new AccessDenied(
    `${text}. Check the credentials: GOOGLE_APPLICATION_CREDENTIALS, the key, or this host's own identity`,
    { cause: new Error(text) },
  );
}
