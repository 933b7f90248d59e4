import { ListObjectsV2Command } from '@aws-sdk/client-s3';

import { StoreUnavailable, Unsupported } from './errors.ts';
import { isObjectName } from './object-name.ts';
import { incompleteAnswer, type S3Bucket } from './s3-bucket.ts';
import type { ListedObject, ListOptions } from './storage-target.ts';

const listedPerRequestMax = 1_000;
/** S3 may answer an empty page that is not the last; a store that does so for ever is broken. */
const emptyPagesMax = 100;

/** Page after page; a store that does not list in ascending order is found out, because all of ours relies on it. */
export async function* listObjects(
  bucket: S3Bucket,
  prefix: string,
  options: ListOptions,
  signal: AbortSignal,
): AsyncGenerator<ListedObject> {
  let left = options.limit ?? Number.POSITIVE_INFINITY;
  let last = options.startAfter ?? '';
  let token: string | undefined;
  let emptyPages = 0;
  while (left > 0) {
    const page = await listPage(bucket, prefix, { startAfter: last, limit: left }, token, signal);
    for (const object of page.objects) {
      if (object.name <= last && last !== '') throw outOfOrder(bucket, object.name, last);
      last = object.name;
      yield object;
      if (--left <= 0) return;
    }
    token = page.nextToken;
    if (token === undefined) return;
    if (page.objects.length === 0 && ++emptyPages > emptyPagesMax)
      throw new StoreUnavailable(`s3://${bucket.name}: a listing of empty pages does not end`);
  }
}

interface Page {
  readonly objects: readonly ListedObject[];
  readonly nextToken: string | undefined;
}

async function listPage(
  bucket: S3Bucket,
  prefix: string,
  options: Required<ListOptions>,
  token: string | undefined,
  signal: AbortSignal,
): Promise<Page> {
  const command = new ListObjectsV2Command({
    Bucket: bucket.name,
    Prefix: bucket.prefix + prefix,
    MaxKeys: Math.min(options.limit, listedPerRequestMax),
    ...(token === undefined ? {} : { ContinuationToken: token }),
    ...(token !== undefined || options.startAfter === '' ? {} : { StartAfter: bucket.prefix + options.startAfter }),
  });
  const answer = await bucket.request('listing', prefix, signal, (abortSignal) =>
    bucket.client.send(command, { abortSignal }),
  );
  const objects: ListedObject[] = [];
  for (const { Key, Size, LastModified } of answer.Contents ?? []) {
    if (Key === undefined || Size === undefined || LastModified === undefined) throw incompleteAnswer(bucket, prefix);
    const name = Key.slice(bucket.prefix.length);
    // Consoles and other tools leave objects of their own, such as `folder/`; none of ours has such a name.
    if (isObjectName(name)) objects.push({ name, bytes: Size, modified: LastModified });
  }
  return { objects, nextToken: answer.IsTruncated === true ? answer.NextContinuationToken : undefined };
}

function outOfOrder(bucket: S3Bucket, name: string, last: string): Unsupported {
  return new Unsupported(
    `s3://${bucket.name}: the store lists ${name} after ${last}; a store that does not list in order cannot be used`,
  );
}
