import { describe, expect, it } from 'vitest';
import { azureError } from '../../storage-targets/azure-blob-errors.ts';
import { Throttled } from '../../storage-targets/errors.ts';
import { type Asked, GcsFailure, gcsError, NoToken } from '../../storage-targets/gcs-errors.ts';

/** Answers as the vendors document them, where no server that can be installed gives them. */

const hourAgo = new Date(Date.now() - 3_600_000).toUTCString();
const justNow = new Date().toUTCString();

function azure(status: number, code: string, headers: Record<string, string> = {}): unknown {
  const all = new Headers({ date: justNow, 'x-ms-error-code': code, ...headers });
  const error = Object.assign(new Error('said'), { name: 'RestError', statusCode: status, response: { headers: all } });
  return azureError(error, { subject: 'azure://a/c/b', doing: 'putting' });
}

describe('Azure', () => {
  it.each([
    [409, 'BlobImmutableDueToPolicy', 'IMMUTABLE'],
    [409, 'BlobArchived', 'ARCHIVED'],
    [409, 'BlobAlreadyExists', 'OBJECT_EXISTS'],
    [412, 'ConditionNotMet', 'OBJECT_EXISTS'],
    [403, 'UnauthorizedBlobOverwrite', 'OBJECT_EXISTS'],
    [404, 'ContainerNotFound', 'BUCKET_NOT_FOUND'],
    [409, 'ContainerBeingDeleted', 'BUCKET_NOT_FOUND'],
    [403, 'AuthorizationPermissionMismatch', 'ACCESS_DENIED'],
    [403, 'KeyBasedAuthenticationNotPermitted', 'ACCESS_DENIED'],
    [401, 'NoAuthenticationInformation', 'ACCESS_DENIED'],
    [503, 'ServerBusy', 'STORE_THROTTLED'],
    [500, 'OperationTimedOut', 'STORE_UNAVAILABLE'],
    [502, 'unheard-of', 'STORE_UNAVAILABLE'],
    [400, 'Crc64Mismatch', 'CHECKSUM_REFUSED'],
    [400, 'unheard-of', 'REQUEST_REFUSED'],
  ])('%i %s is %s', (status, code, expected) => {
    expect(azure(status, code)).toMatchObject({ code: expected });
  });

  it('a refusal whose Date is far from our clock is ClockSkewed', () => {
    expect(azure(403, 'AuthenticationFailed', { date: hourAgo })).toMatchObject({ code: 'CLOCK_SKEWED' });
    expect(azure(403, 'AuthenticationFailed')).toMatchObject({ code: 'ACCESS_DENIED' });
  });

  it('Retry-After is passed on', () => {
    const error = azure(503, 'ServerBusy', { 'retry-after': '7' });
    expect(error instanceof Throttled && error.retryAfterMs).toBe(7_000);
  });
});

function gcs(asked: Asked, status: number, reason: string, headers: Record<string, string> = {}): unknown {
  const body = reason === '' ? 'said' : JSON.stringify({ error: { message: 'said', errors: [{ reason }] } });
  const answer = { status, headers: { date: justNow, ...headers } };
  return gcsError(new GcsFailure(asked, answer, body), { subject: 'gs://b/o', doing: 'putting' });
}

function token(cause: unknown): unknown {
  return gcsError(new NoToken('no token', { cause }), { subject: 'gs://b/o', doing: 'putting' });
}

describe('Google Cloud Storage', () => {
  it.each<[Asked, number, string, string]>([
    ['object', 403, 'retentionPolicyNotMet', 'IMMUTABLE'],
    ['object', 403, 'objectUnderActiveHold', 'IMMUTABLE'],
    ['put', 412, 'conditionNotMet', 'OBJECT_EXISTS'],
    ['put', 412, '', 'OBJECT_EXISTS'],
    ['put', 400, 'invalid', 'CHECKSUM_REFUSED'],
    ['put', 404, 'notFound', 'BUCKET_NOT_FOUND'],
    ['listing', 404, 'notFound', 'BUCKET_NOT_FOUND'],
    ['object', 404, 'notFound', 'OBJECT_NOT_FOUND'],
    ['object', 400, 'invalid', 'REQUEST_REFUSED'],
    ['object', 401, 'authError', 'ACCESS_DENIED'],
    ['object', 403, 'forbidden', 'ACCESS_DENIED'],
    ['object', 403, 'rateLimitExceeded', 'STORE_THROTTLED'],
    ['object', 429, 'rateLimitExceeded', 'STORE_THROTTLED'],
    ['object', 416, 'requestedRangeNotSatisfiable', 'RANGE_INVALID'],
    ['object', 503, 'backendError', 'STORE_UNAVAILABLE'],
  ])('of a %s, %i %s is %s', (asked, status, reason, expected) => {
    expect(gcs(asked, status, reason)).toMatchObject({ code: expected });
  });

  it('a refused token whose Date is far from our clock is ClockSkewed', () => {
    expect(gcs('object', 401, 'authError', { date: hourAgo })).toMatchObject({ code: 'CLOCK_SKEWED' });
  });

  it('whoever gives out tokens may say no, or be away', () => {
    const refused = Object.assign(new Error('invalid_grant'), { response: { status: 400 } });
    const broken = Object.assign(new Error('sorry'), { response: { status: 503 } });
    const away = Object.assign(new Error('connect'), { code: 'ECONNREFUSED', syscall: 'connect' });
    expect(token(refused)).toMatchObject({ code: 'ACCESS_DENIED' });
    expect(token(broken)).toMatchObject({ code: 'STORE_UNAVAILABLE' });
    expect(token(away)).toMatchObject({ code: 'STORE_UNAVAILABLE' });
    expect(token(new Error('wrapped', { cause: away }))).toMatchObject({ code: 'STORE_UNAVAILABLE' });
  });
});
