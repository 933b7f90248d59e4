import { randomUUID } from 'node:crypto';

import { readBody } from './answer-body.ts';
import { checkBytes, recordedSha256 } from './checked-bytes.ts';
import { crc32c, crc32cText } from './crc32c.ts';
import { BucketNotFound, ObjectNotFound, StoreUnavailable } from './errors.ts';
import { GcsBucket, type GcsCall, type GcsOptions } from './gcs-bucket.ts';
import { deleteEveryGeneration } from './gcs-delete.ts';
import { jsonOf, listedObject, listObjects } from './gcs-list.ts';
import { extendRetention, lockRefused, requireLocked, requireRetention, retentionUntil } from './gcs-retention.ts';
import { httpAgents } from './http-agents.ts';
import { field } from './network-errors.ts';
import { checkListPrefix } from './object-name.ts';
import { pacedBody } from './paced-body.ts';
import type { ByteRange, GetOptions, ObjectInfo, Pace, PutOptions, StorageTarget } from './storage-target.ts';
import { takenOrDenied } from './taken-or-denied.ts';

/** One bucket of Google Cloud Storage, through its JSON API. Opening sends nothing; each method translates one call. */
export async function openGcsTarget(options: GcsOptions): Promise<StorageTarget> {
  const bucket = new GcsBucket(options, await httpAgents(options));
  return {
    description: `${bucket.place}/${bucket.prefix}`,
    putIfAbsent: (name, bytes, putOptions, signal) => putIfAbsent(bucket, name, bytes, putOptions, signal),
    get: (name, range, signal, getOptions) => getObject(bucket, name, range, signal, getOptions),
    head: (name, signal) => headObject(bucket, name, signal),
    list(prefix, listOptions, signal) {
      checkListPrefix(prefix);
      return listObjects(bucket, prefix, listOptions, signal);
    },
    delete: (names, signal) => deleteEveryGeneration(bucket, names, signal),
    extendRetention: (name, until, signal) => extendRetention(bucket, name, until, signal),
    now: (signal) => storeTime(bucket, signal),
    async [Symbol.asyncDispose]() {
      bucket.close();
    },
  };
}

async function putIfAbsent(
  bucket: GcsBucket,
  name: string,
  bytes: Uint8Array,
  options: PutOptions,
  signal: AbortSignal,
): Promise<void> {
  bucket.object(name);
  const { retainUntil } = options;
  signal.throwIfAborted();
  if (retainUntil) await requireRetention(bucket, signal);
  let crc = 0;
  await checkBytes(bucket.subject(name), bytes, options.sha256, (piece) => {
    crc = crc32c(piece, crc);
  });
  const metadata = {
    name: bucket.prefix + name,
    contentType: 'application/octet-stream',
    crc32c: crc32cText(crc),
    metadata: { sha256: Buffer.from(options.sha256).toString('hex') },
    ...(retainUntil && retentionUntil(retainUntil, bucket.retentionMode)),
  };
  const send = async (either: AbortSignal, pace: Pace | undefined) => {
    return await jsonOf(await bucket.call(uploadCall(metadata, bytes, pace), either));
  };
  try {
    const put = await bucket.request('putting', name, signal, send, options.pace);
    if (retainUntil) requireLocked(bucket, name, retainUntil, put, bucket.retentionMode);
  } catch (error) {
    const named = await takenOrDenied(error, bucket.subject(name), () => headObject(bucket, name, signal));
    throw retainUntil ? lockRefused(named) : named;
  }
}

/** One request of two parts, the metadata and the bytes, so that the store checks them before the object exists. */
function uploadCall(metadata: object, bytes: Uint8Array, pace: Pace | undefined): GcsCall {
  const boundary = randomUUID();
  const before = Buffer.from(
    `--${boundary}\r\ncontent-type: application/json; charset=utf-8\r\n\r\n${JSON.stringify(metadata)}\r\n` +
      `--${boundary}\r\ncontent-type: application/octet-stream\r\n\r\n`,
  );
  const after = Buffer.from(`\r\n--${boundary}--\r\n`);
  return {
    method: 'POST',
    path: '/o',
    upload: true,
    query: { uploadType: 'multipart', ifGenerationMatch: '0', fields: 'generation,retention' },
    headers: {
      'content-type': `multipart/related; boundary=${boundary}`,
      'content-length': String(before.length + bytes.length + after.length),
    },
    body: [before, pace === undefined || bytes.length === 0 ? bytes : pacedBody(bytes, pace), after],
  };
}

async function getObject(
  bucket: GcsBucket,
  name: string,
  range: ByteRange | null,
  signal: AbortSignal,
  { pace, into }: GetOptions = {},
): Promise<Uint8Array> {
  const call: GcsCall = {
    method: 'GET',
    path: bucket.object(name),
    query: { alt: 'media' },
    ...(range && { headers: { range: `bytes=${range.offset}-${range.offset + range.length - 1}` } }),
  };
  const read = async (either: AbortSignal, paced: Pace | undefined) => {
    const { headers, body } = await bucket.call(call, either);
    const length = headers['content-length'];
    const announced = length === undefined ? undefined : Number(length);
    const how = { ...(paced && { pace: paced }), ...(into && { into }) };
    const answer = { announced, contentRange: headers['content-range'], body };
    return await readBody(answer, range, bucket.subject(name), either, how);
  };
  return await orNoBucket(bucket, signal, bucket.request('reading', name, signal, read, pace));
}

async function headObject(bucket: GcsBucket, name: string, signal: AbortSignal): Promise<ObjectInfo> {
  const call: GcsCall = {
    method: 'GET',
    path: bucket.object(name),
    query: { fields: 'name,size,updated,metadata' },
  };
  const looking = bucket.request('looking at it', name, signal, async (either) =>
    jsonOf(await bucket.call(call, either)),
  );
  const found = await orNoBucket(bucket, signal, looking);
  const recorded = field(field(found, 'metadata'), 'sha256');
  return {
    ...listedObject(bucket, found),
    sha256: recordedSha256(typeof recorded === 'string' ? recorded : undefined),
  };
}

/** The store answers the same for a missing object and a missing bucket; a listing of the bucket tells which. */
async function orNoBucket<T>(bucket: GcsBucket, signal: AbortSignal, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (error instanceof ObjectNotFound && !bucket.seen) await checkBucket(bucket, signal);
    throw error;
  }
}

async function checkBucket(bucket: GcsBucket, signal: AbortSignal): Promise<void> {
  try {
    await storeTime(bucket, signal);
  } catch (error) {
    if (error instanceof BucketNotFound) throw error;
    signal.throwIfAborted();
    // Whether the bucket is there stays unknown without permission to look; the caller's own error says enough.
  }
}

async function storeTime(bucket: GcsBucket, signal: AbortSignal): Promise<Date> {
  const query = { prefix: bucket.prefix, maxResults: '1', fields: 'nextPageToken' };
  const { headers } = await bucket.request("reading the store's clock", '', signal, async (either) => {
    const answer = await bucket.call({ method: 'GET', path: '/o', query }, either);
    answer.body.resume();
    return answer;
  });
  const time = Date.parse(headers.date ?? '');
  if (Number.isNaN(time)) throw new StoreUnavailable(`${bucket.place}: the store answers without a Date header`);
  return new Date(time);
}
