import { ListObjectsV2Command } from '@aws-sdk/client-s3';

import { type ListPage, listPages, type PageRequest } from './list-pages.ts';
import { incompleteAnswer, type S3Bucket } from './s3-bucket.ts';
import type { ListedObject, ListOptions } from './storage-target.ts';

const listedPerRequestMax = 1_000;

export function listObjects(
  bucket: S3Bucket,
  prefix: string,
  options: ListOptions,
  signal: AbortSignal,
): AsyncGenerator<ListedObject> {
  return listPages(`s3://${bucket.name}`, options, (request) => listPage(bucket, prefix, request, signal));
}

async function listPage(
  bucket: S3Bucket,
  prefix: string,
  { startAfter, limit, token }: PageRequest,
  signal: AbortSignal,
): Promise<ListPage> {
  const command = new ListObjectsV2Command({
    Bucket: bucket.name,
    Prefix: bucket.prefix + prefix,
    MaxKeys: Math.min(limit, listedPerRequestMax),
    ...(token === undefined ? {} : { ContinuationToken: token }),
    ...(token !== undefined || startAfter === '' ? {} : { StartAfter: bucket.prefix + startAfter }),
  });
  const answer = await bucket.request('listing', prefix, signal, (abortSignal) =>
    bucket.client.send(command, { abortSignal }),
  );
  const objects = (answer.Contents ?? []).map(({ Key, Size, LastModified }) => {
    if (Key === undefined || Size === undefined || LastModified === undefined) throw incompleteAnswer(bucket, prefix);
    return { name: Key.slice(bucket.prefix.length), bytes: Size, modified: LastModified };
  });
  return { objects, nextToken: answer.IsTruncated === true ? answer.NextContinuationToken : undefined };
}
