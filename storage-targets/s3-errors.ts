import { skewedError, throttledError, untrustedError } from './answer-errors.ts';
import {
  AccessDenied,
  Archived,
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
  WrongRegion,
} from './errors.ts';
import { clockIsOff, field, isUntrusted, networkCode, said } from './network-errors.ts';

/** What a request was about, for the message. */
export interface S3Request {
  /** `s3://bucket/key`, or the bucket alone. */
  readonly subject: string;
  readonly doing: string;
  readonly region: string;
}

/** What the SDK's error tells, taken out of it: the raw one may hold a session token in its signing strings. */
interface Failure {
  /** S3's error code, or Node's for a request that never got an answer. */
  readonly code: string;
  /** Null: no answer came. */
  readonly status: number | null;
  readonly message: string;
  readonly headers: Readonly<Record<string, string>>;
  /** The right region, where the store names it. */
  readonly region: string | null;
}

type Make = (failure: Failure, request: S3Request, text: string, because: ErrorOptions) => StorageError;

const throttled: Make = ({ headers }, _, text, because) => throttledError(text, headers['retry-after'], because);
const denied: Make = (_, __, text, because) =>
  new AccessDenied(`${text}. Check the credentials and what they are allowed to do`, because);
const skewed: Make = ({ headers }, _, text, because) => skewedError(text, headers.date, because);
const wrongRegion: Make = (failure, request, text, because) =>
  new WrongRegion(`${text}. The bucket is in region ${failure.region ?? 'unknown'}, not ${request.region}`, because);
const unavailable: Make = (_, __, text, because) => new StoreUnavailable(text, because);
const untrusted: Make = (_, __, text, because) => untrustedError(text, because);
const unsupported: Make = (_, __, text, because) => new Unsupported(`${text}. The store cannot do this`, because);

/** S3's error codes: docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html, and STS's, whose errors end up here too. */
const byCode: Readonly<Record<string, Make>> = {
  NoSuchKey: (_, __, text, because) => new ObjectNotFound(text, because),
  NoSuchVersion: (_, __, text, because) => new ObjectNotFound(text, because),
  NoSuchBucket: (_, __, text, because) => new BucketNotFound(`${text}. Create it, or correct its name`, because),
  PreconditionFailed: (_, __, text, because) => new ObjectExists(text, because),
  ConditionalRequestConflict: (_, __, text, because) => new Conflict(text, because),
  OperationAborted: (_, __, text, because) => new Conflict(text, because),
  SlowDown: throttled,
  Throttling: throttled,
  ThrottlingException: throttled,
  RequestLimitExceeded: throttled,
  TooManyRequests: throttled,
  RequestTimeTooSkewed: skewed,
  RequestExpired: skewed,
  InvalidObjectState: (_, __, text, because) =>
    new Archived(`${text}. It was moved to an archive tier: restore it first`, because),
  BadDigest: (_, __, text, because) => new ChecksumRefused(text, because),
  InvalidDigest: (_, __, text, because) => new ChecksumRefused(text, because),
  XAmzContentSHA256Mismatch: (_, __, text, because) => new ChecksumRefused(text, because),
  XAmzContentChecksumMismatch: (_, __, text, because) => new ChecksumRefused(text, because),
  InvalidRange: (_, __, text, because) => new RangeInvalid(text, because),
  PermanentRedirect: wrongRegion,
  TemporaryRedirect: wrongRegion,
  AuthorizationHeaderMalformed: wrongRegion,
  IllegalLocationConstraintException: wrongRegion,
  InvalidLocationConstraint: wrongRegion,
  QuotaExceeded: (_, __, text, because) => new QuotaExceeded(text, because),
  InsufficientStorage: (_, __, text, because) => new QuotaExceeded(text, because),
  XMinioStorageFull: (_, __, text, because) => new QuotaExceeded(text, because),
  ObjectLocked: (_, __, text, because) => new Immutable(text, because),
  NotImplemented: unsupported,
  ObjectLockConfigurationNotFoundError: unsupported,
  NoSuchObjectLockConfiguration: unsupported,
  InvalidBucketState: unsupported,
  RequestTimeout: unavailable,
  InternalError: unavailable,
  ServiceUnavailable: unavailable,
  InvalidAccessKeyId: denied,
  SignatureDoesNotMatch: denied,
  AccessDenied: denied,
  AccessDeniedException: denied,
  ExpiredToken: denied,
  ExpiredTokenException: denied,
  InvalidToken: denied,
  InvalidClientTokenId: denied,
  XAdminUserNotFound: denied,
  InvalidIdentityToken: denied,
  InvalidIdentityTokenException: denied,
  UnrecognizedClientException: denied,
  IDPRejectedClaim: denied,
  IDPRejectedClaimException: denied,
  CredentialsProviderError: denied,
  TokenProviderError: denied,
  // The token file of a web identity.
  ENOENT: denied,
  EACCES: denied,
};

const byStatus: Readonly<Record<number, Make>> = {
  301: wrongRegion,
  307: wrongRegion,
  403: denied,
  408: unavailable,
  409: (_, __, text, because) => new Conflict(text, because),
  429: throttled,
  501: unsupported,
  507: (_, __, text, because) => new QuotaExceeded(text, because),
};

const byBareStatus: Readonly<Record<number, Make>> = {
  404: (_, __, text, because) => new ObjectNotFound(text, because),
  412: (_, __, text, because) => new ObjectExists(text, because),
  416: (_, __, text, because) => new RangeInvalid(text, because),
};

/** What the SDK calls an error whose answer names none, as every answer to a HEAD. */
const codeless: ReadonlySet<string> = new Set(['NotFound', 'Unknown', 'UnknownError']);

/** Names what the SDK threw. Errors that are ours already pass through. */
export function s3Error(error: unknown, request: S3Request): unknown {
  const failure = failureOf(error);
  if (failure === null) return error;
  const { code, status } = failure;
  const text = `${request.subject}: ${request.doing} failed: ${code}${status === null ? '' : ` (HTTP ${status})`}${said(failure.message, code)}`;
  return makerFor(failure, request)(failure, request, text, { cause: new Error(text) });
}

function makerFor(failure: Failure, request: S3Request): Make {
  const { code, status } = failure;
  if (isUntrusted(code)) return untrusted;
  if (Object.hasOwn(byCode, code)) return byCode[code] ?? unavailable;
  if (status === null || status === 200) return unavailable;
  // A HEAD has no body, hence no code: the clock and the region are told by headers.
  if (status === 403 && clockIsOff(failure.headers.date)) return skewed;
  if (status === 400 && failure.region !== null && failure.region !== request.region) return wrongRegion;
  if (status === 503) return throttled;
  if (status !== 501 && status !== 507 && status >= 500) return unavailable;
  // A status alone says that an object is missing or exists only when the answer has no code that says something else.
  const byStatusOrCode = codeless.has(code) ? { ...byStatus, ...byBareStatus } : byStatus;
  return byStatusOrCode[status] ?? ((_, __, text, because) => new RequestRefused(text, because));
}

/** Null when `error` came neither from the SDK nor from Node's network calls. */
function failureOf(error: unknown): Failure | null {
  if (!(error instanceof Error)) return null;
  const metadata = field(error, '$metadata');
  const nodeCode = networkCode(error);
  const fromSdk = metadata !== undefined || sdkOwnErrors.has(error.name);
  if (!fromSdk && nodeCode === null) return null;
  const status = field(metadata, 'httpStatusCode');
  const headers = headersOf(field(error, '$response'));
  return {
    code: nodeCode ?? error.name,
    status: typeof status === 'number' ? status : null,
    message: error.message,
    headers,
    region: headers['x-amz-bucket-region'] ?? textOf(field(error, 'Region')),
  };
}

/** Errors that the SDK throws without an HTTP answer behind them. */
const sdkOwnErrors: ReadonlySet<string> = new Set([
  'TimeoutError',
  'AbortError',
  'CredentialsProviderError',
  'TokenProviderError',
]);

function headersOf(response: unknown): Record<string, string> {
  const found: Record<string, string> = {};
  for (const [name, value] of Object.entries(field(response, 'headers') ?? {})) {
    if (typeof value === 'string') found[name.toLowerCase()] = value;
  }
  return found;
}

function textOf(value: unknown): string | null {
  return typeof value === 'string' && /^[a-z0-9-]+$/.test(value) ? value : null;
}
