/** What can go wrong at a storage target. Messages name the object and the target, say what to do, and hold no secret. */

export type StorageError =
  | ObjectNotFound
  | ObjectExists
  | RangeInvalid
  | AccessDenied
  | BucketNotFound
  | WrongRegion
  | Conflict
  | Throttled
  | StoreUnavailable
  | ChecksumRefused
  | Immutable
  | Archived
  | QuotaExceeded
  | ClockSkewed
  | Unsupported
  | TlsUntrusted
  | StoreNotAtomic
  | NameInvalid
  | RequestRefused;

interface Options {
  readonly cause?: unknown;
}

export class ObjectNotFound extends Error {
  readonly code = 'OBJECT_NOT_FOUND';
  override readonly name = 'ObjectNotFound';
}
export class ObjectExists extends Error {
  readonly code = 'OBJECT_EXISTS';
  override readonly name = 'ObjectExists';
}
/** The object is shorter than the range that was asked for. */
export class RangeInvalid extends Error {
  readonly code = 'RANGE_INVALID';
  override readonly name = 'RangeInvalid';
}
/** Bad or expired credentials, or a permission that is missing. */
export class AccessDenied extends Error {
  readonly code = 'ACCESS_DENIED';
  override readonly name = 'AccessDenied';
}
export class BucketNotFound extends Error {
  readonly code = 'BUCKET_NOT_FOUND';
  override readonly name = 'BucketNotFound';
}
export class WrongRegion extends Error {
  readonly code = 'WRONG_REGION';
  override readonly name = 'WrongRegion';
}
/** A racing conditional write: the store could not decide; try again (S3 409). */
export class Conflict extends Error {
  readonly code = 'STORE_CONFLICT';
  override readonly name = 'Conflict';
}
export class Throttled extends Error {
  readonly code = 'STORE_THROTTLED';
  override readonly name = 'Throttled';
  readonly retryAfterMs: number | null;
  constructor(message: string, retryAfterMs: number | null, options?: Options) {
    super(message, options);
    this.retryAfterMs = retryAfterMs;
  }
}
/** No answer, a broken one, or a 5xx. For a put the outcome is unknown. */
export class StoreUnavailable extends Error {
  readonly code = 'STORE_UNAVAILABLE';
  override readonly name = 'StoreUnavailable';
}
/** The store says that the bytes that arrived are not the bytes whose checksum was sent. */
export class ChecksumRefused extends Error {
  readonly code = 'CHECKSUM_REFUSED';
  override readonly name = 'ChecksumRefused';
}
export class Immutable extends Error {
  readonly code = 'IMMUTABLE';
  override readonly name = 'Immutable';
}
/** Moved to a tier that needs a restore request first. */
export class Archived extends Error {
  readonly code = 'ARCHIVED';
  override readonly name = 'Archived';
}
/** Disk full, bucket quota. */
export class QuotaExceeded extends Error {
  readonly code = 'QUOTA_EXCEEDED';
  override readonly name = 'QuotaExceeded';
}
export class ClockSkewed extends Error {
  readonly code = 'CLOCK_SKEWED';
  override readonly name = 'ClockSkewed';
}
export class Unsupported extends Error {
  readonly code = 'UNSUPPORTED';
  override readonly name = 'Unsupported';
}
export class TlsUntrusted extends Error {
  readonly code = 'TLS_UNTRUSTED';
  override readonly name = 'TlsUntrusted';
}
/** Put-if-absent is not atomic here: two writers of one name may both win, so no chain can be trusted to this store. */
export class StoreNotAtomic extends Error {
  readonly code = 'STORE_NOT_ATOMIC';
  override readonly name = 'StoreNotAtomic';
}
/** Not an object name of the contract, or a name that the store cannot hold. Always a defect of the caller. */
export class NameInvalid extends Error {
  readonly code = 'NAME_INVALID';
  override readonly name = 'NameInvalid';
}
/** The store refused the request as it stands, for a reason that has no name of its own here; trying again changes nothing. */
export class RequestRefused extends Error {
  readonly code = 'REQUEST_REFUSED';
  override readonly name = 'RequestRefused';
}
