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
  RangeInvalid,
  RequestRefused,
  type StorageError,
  StoreUnavailable,
  Unsupported,
} from './errors.ts';
import { clockIsOff, field, isUntrusted, networkCode, said } from './network-errors.ts';

/** What a request was about, for the message. */
export interface AzureRequest {
  /** `azure://account/container/blob`, or the container alone. */
  readonly subject: string;
  readonly doing: string;
}

/** What the SDK's error tells, taken out of it: the raw one holds the request, and with it signatures and tokens. */
interface Failure {
  /** Azure's error code, or Node's for a request that never got an answer. */
  readonly code: string;
  /** Null: no answer came. */
  readonly status: number | null;
  readonly message: string;
  readonly date: string | undefined;
  readonly retryAfter: string | undefined;
}

type Make = (failure: Failure, text: string, because: ErrorOptions) => StorageError;

const denied: Make = (_, text, because) =>
  new AccessDenied(`${text}. Check the credentials, their roles, and the account's network rules`, because);
const skewed: Make = ({ date }, text, because) => skewedError(text, date, because);
const throttled: Make = ({ retryAfter }, text, because) => throttledError(text, retryAfter, because);
const unavailable: Make = (_, text, because) => new StoreUnavailable(text, because);
const exists: Make = (_, text, because) => new ObjectExists(text, because);
const missing: Make = (_, text, because) => new ObjectNotFound(text, because);
const noContainer: Make = (_, text, because) =>
  new BucketNotFound(`${text}. Create the container, or correct its name`, because);
const checksum: Make = (_, text, because) => new ChecksumRefused(text, because);
const immutable: Make = (_, text, because) => new Immutable(text, because);
const archived: Make = (_, text, because) =>
  new Archived(`${text}. It was moved to the archive tier: rehydrate it first`, because);
const unsupported: Make = (_, text, because) => new Unsupported(`${text}. The store cannot do this`, because);
const untrusted: Make = (_, text, because) => untrustedError(text, because);

/** learn.microsoft.com/rest/api/storageservices/blob-service-error-codes and common-rest-api-error-codes */
const byCode: Readonly<Record<string, Make>> = {
  BlobNotFound: missing,
  ResourceNotFound: missing,
  ContainerNotFound: noContainer,
  ContainerBeingDeleted: noContainer,
  ContainerDisabled: noContainer,
  BlobAlreadyExists: exists,
  ConditionNotMet: exists,
  // Credentials that may create but not overwrite are told so instead of the condition that was not met.
  UnauthorizedBlobOverwrite: exists,
  InvalidAuthenticationInfo: denied,
  InvalidRange: (_, text, because) => new RangeInvalid(text, because),
  Md5Mismatch: checksum,
  InvalidMd5: checksum,
  Crc64Mismatch: checksum,
  InvalidCrc64: checksum,
  ServerBusy: throttled,
  TooManyRequests: throttled,
  OperationTimedOut: unavailable,
  InternalError: unavailable,
  BlobArchived: archived,
  BlobBeingRehydrated: archived,
  BlobImmutableDueToPolicy: immutable,
  BlobImmutableDueToLegalHold: immutable,
  APINotImplemented: unsupported,
  FeatureNotSupported: unsupported,
};

const byStatus: Readonly<Record<number, Make>> = {
  401: denied,
  403: denied,
  408: unavailable,
  409: (_, text, because) => new Conflict(text, because),
  429: throttled,
  501: unsupported,
};

/** Errors of `@azure/identity`, which asks several sources in turn. */
const credentialErrors: ReadonlySet<string> = new Set([
  'CredentialUnavailableError',
  'AuthenticationError',
  'AggregateAuthenticationError',
  'AuthenticationRequiredError',
]);

/** Names what the SDK threw. Errors that are ours already pass through. */
export function azureError(error: unknown, { subject, doing }: AzureRequest): unknown {
  const failure = failureOf(error);
  if (failure === null) return error;
  const { code, status } = failure;
  const text = `${subject}: ${doing} failed: ${code}${status === null ? '' : ` (HTTP ${status})`}${said(failure.message, code)}`;
  return makerFor(failure)(failure, text, { cause: new Error(text) });
}

function makerFor(failure: Failure): Make {
  const { code, status, date } = failure;
  if (credentialErrors.has(code)) return denied;
  if (isUntrusted(code)) return untrusted;
  if (Object.hasOwn(byCode, code)) return byCode[code] ?? unavailable;
  if (status === null || status < 300) return unavailable;
  if ((status === 401 || status === 403) && clockIsOff(date)) return skewed;
  if (status !== 501 && status >= 500) return unavailable;
  return byStatus[status] ?? ((_, text, because) => new RequestRefused(text, because));
}

/** Null when `error` came neither from the SDK nor from Node's network calls. */
function failureOf(error: unknown): Failure | null {
  if (!(error instanceof Error)) return null;
  const network = networkCode(error);
  const headers = field(field(error, 'response'), 'headers');
  const header = (name: string) => headerOf(headers, name);
  const base = { date: header('date'), retryAfter: header('retry-after') };
  if (credentialErrors.has(error.name))
    return { ...base, code: error.name, status: null, message: firstLine(error.message) };
  if (network !== null) return { ...base, code: network, status: null, message: error.message };
  if (error.name !== 'RestError') return null;
  const status = field(error, 'statusCode');
  // A HEAD has no body: its code comes as a header.
  const code = header('x-ms-error-code') ?? field(error, 'code');
  const said = field(field(error, 'details'), 'message');
  return {
    ...base,
    code: typeof code === 'string' && code !== '' ? code : 'Unknown',
    status: typeof status === 'number' ? status : null,
    message: firstLine(typeof said === 'string' ? said : error.message),
  };
}

/** When the store refused what the SDK threw for, by the store's clock. */
export function answerDate(error: unknown): string | undefined {
  return headerOf(field(field(error, 'response'), 'headers'), 'date');
}

function headerOf(headers: unknown, name: string): string | undefined {
  const get = field(headers, 'get');
  const value: unknown = typeof get === 'function' ? get.call(headers, name) : undefined;
  return typeof value === 'string' ? value : undefined;
}

/** The rest of an error's text is its answer once more, with request ids and times. */
function firstLine(text: string): string {
  return text.split('\n', 1)[0] ?? '';
}
