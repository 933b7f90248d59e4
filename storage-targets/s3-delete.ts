import {
  DeleteObjectCommand,
  DeleteObjectsCommand,
  HeadObjectCommand,
  ListObjectVersionsCommand,
  type ListObjectVersionsCommandOutput,
  type ObjectIdentifier,
} from '@aws-sdk/client-s3';

import { AccessDenied, Immutable, ObjectNotFound, RequestRefused, Unsupported } from './errors.ts';
import type { S3Bucket } from './s3-bucket.ts';
import { s3Error } from './s3-errors.ts';

const versionsPerRequestMax = 1_000;
const listingsAtOnceMax = 8;

/**
 * Deleting a name alone would hide it behind a delete marker: storage would still be paid for, and a later conditional
 * put of the name would succeed. So every version and marker is removed by its id; on an unversioned bucket that is
 * the one `null` version. All names are tried before the first failure is thrown.
 */
export async function deleteEveryVersion(
  bucket: S3Bucket,
  names: readonly string[],
  signal: AbortSignal,
): Promise<void> {
  const failures: unknown[] = [];
  let waiting: ObjectIdentifier[] = [];
  for (let first = 0; first < names.length; first += listingsAtOnceMax) {
    const group = names.slice(first, first + listingsAtOnceMax);
    waiting.push(...(await Promise.all(group.map((name) => versionsOf(bucket, name, signal)))).flat());
    while (waiting.length >= versionsPerRequestMax) {
      failures.push(...(await deleteVersions(bucket, waiting.slice(0, versionsPerRequestMax), signal)));
      waiting = waiting.slice(versionsPerRequestMax);
    }
  }
  if (waiting.length > 0) failures.push(...(await deleteVersions(bucket, waiting, signal)));
  if (failures.length > 0) throw failures[0];
}

/** The key is the first of all that begin with it, so the listing stops at the first other one. */
async function versionsOf(bucket: S3Bucket, name: string, signal: AbortSignal): Promise<ObjectIdentifier[]> {
  const key = bucket.key(name);
  const found: ObjectIdentifier[] = [];
  let from: { KeyMarker?: string | undefined; VersionIdMarker?: string | undefined } = {};
  for (;;) {
    const command = new ListObjectVersionsCommand({ Bucket: bucket.name, Prefix: key, ...from });
    const page = await bucket.request('listing versions', name, signal, (abortSignal) =>
      bucket.client.send(command, { abortSignal }),
    );
    const listed = [...(page.Versions ?? []), ...(page.DeleteMarkers ?? [])];
    const ours = listed.filter((version) => version.Key === key);
    for (const { VersionId } of ours) found.push({ Key: key, VersionId: VersionId ?? 'null' });
    if (ours.length < listed.length || !goesOn(page, from.KeyMarker, from.VersionIdMarker)) return found;
    from = { KeyMarker: page.NextKeyMarker, VersionIdMarker: page.NextVersionIdMarker };
  }
}

/** A store that repeats its marker would keep us here for ever. */
function goesOn(page: ListObjectVersionsCommandOutput, key: string | undefined, version: string | undefined): boolean {
  return page.IsTruncated === true && (page.NextKeyMarker !== key || page.NextVersionIdMarker !== version);
}

/** Returns what could not be deleted, as errors. */
async function deleteVersions(
  bucket: S3Bucket,
  versions: readonly ObjectIdentifier[],
  signal: AbortSignal,
): Promise<unknown[]> {
  const command = new DeleteObjectsCommand({ Bucket: bucket.name, Delete: { Objects: [...versions], Quiet: true } });
  const failures: unknown[] = [];
  try {
    const answer = await bucket.request('deleting', '', signal, (abortSignal) =>
      bucket.client.send(command, { abortSignal }),
    );
    for (const { Key, VersionId, Code, Message } of answer.Errors ?? []) {
      if (Code === 'NoSuchKey' || Code === 'NoSuchVersion' || Key === undefined) continue;
      const refusal = Object.assign(new Error(Message), { name: Code, $metadata: { httpStatusCode: 400 } });
      const error = s3Error(refusal, { subject: `s3://${bucket.name}/${Key}`, doing: 'deleting', region: '' });
      failures.push(await lockOr(bucket, { Key, VersionId }, error, signal));
    }
  } catch (error) {
    if (!isRefusal(error)) throw error;
    // Some servers refuse all for one locked object, or know no multi-object delete: one by one, each gets its own answer.
    for (const version of versions) failures.push(...(await deleteVersion(bucket, version, signal)));
  }
  return failures;
}

async function deleteVersion(bucket: S3Bucket, version: ObjectIdentifier, signal: AbortSignal): Promise<unknown[]> {
  const command = new DeleteObjectCommand({ Bucket: bucket.name, ...version });
  try {
    await bucket.request('deleting', nameOf(bucket, version), signal, (abortSignal) =>
      bucket.client.send(command, { abortSignal }),
    );
    return [];
  } catch (error) {
    if (error instanceof ObjectNotFound) return [];
    return [await lockOr(bucket, version, error, signal)];
  }
}

/** S3 answers AccessDenied both for a missing permission and for a locked version; the version itself tells which. */
async function lockOr(
  bucket: S3Bucket,
  version: ObjectIdentifier,
  error: unknown,
  signal: AbortSignal,
): Promise<unknown> {
  if (!isRefusal(error)) return error;
  const head = new HeadObjectCommand({ Bucket: bucket.name, ...version });
  const found = await bucket
    .request('looking at the lock of', nameOf(bucket, version), signal, (abortSignal) =>
      bucket.client.send(head, { abortSignal }),
    )
    .catch(() => null);
  signal.throwIfAborted();
  const subject = `s3://${bucket.name}/${version.Key}`;
  if (found?.ObjectLockLegalHoldStatus === 'ON')
    return new Immutable(`${subject} is under legal hold`, { cause: error });
  const until = found?.ObjectLockRetainUntilDate;
  return until ? new Immutable(`${subject} is locked until ${until.toISOString()}`, { cause: error }) : error;
}

function isRefusal(error: unknown): boolean {
  return error instanceof AccessDenied || error instanceof RequestRefused || error instanceof Unsupported;
}

function nameOf(bucket: S3Bucket, version: ObjectIdentifier): string {
  return (version.Key ?? '').slice(bucket.prefix.length);
}
