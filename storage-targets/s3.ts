import type { Readable } from 'node:stream';

import {
  GetObjectCommand,
  HeadBucketCommand,
  HeadObjectCommand,
  PutObjectCommand,
  type PutObjectCommandInput,
  PutObjectRetentionCommand,
  S3Client,
} from '@aws-sdk/client-s3';

import { readBody } from './answer-body.ts';
import {
  AccessDenied,
  BucketNotFound,
  ClockSkewed,
  Immutable,
  ObjectNotFound,
  RequestRefused,
  StoreUnavailable,
  Unsupported,
} from './errors.ts';
import { checkListPrefix } from './object-name.ts';
import { pacedBody } from './paced-body.ts';
import { incompleteAnswer, S3Bucket, type S3Options } from './s3-bucket.ts';
import { s3ClientConfig } from './s3-connection.ts';
import { deleteEveryVersion } from './s3-delete.ts';
import { listObjects } from './s3-list.ts';
import type { ByteRange, GetOptions, ObjectInfo, Pace, PutOptions, StorageTarget } from './storage-target.ts';

/** One bucket of AWS S3 or of a server that speaks its protocol. Opening sends nothing; each method translates one call. */
export async function openS3Target(options: S3Options): Promise<StorageTarget> {
  const client = new S3Client(await s3ClientConfig(options));
  const bucket = new S3Bucket(client, options);
  return {
    description: `s3://${options.bucket}/${bucket.prefix}`,
    putIfAbsent: (name, bytes, putOptions, signal) => putIfAbsent(bucket, name, bytes, putOptions, signal),
    get: (name, range, signal, getOptions) => getObject(bucket, name, range, signal, getOptions),
    head: async (name, signal) => (await headObject(bucket, name, signal)).info,
    list(prefix, listOptions, signal) {
      checkListPrefix(prefix);
      return listObjects(bucket, prefix, listOptions, signal);
    },
    delete: (names, signal) => deleteEveryVersion(bucket, names, signal),
    extendRetention: (name, until, signal) => extendRetention(bucket, name, until, signal),
    now: (signal) => storeTime(bucket, signal),
    async [Symbol.asyncDispose]() {
      client.destroy();
    },
  };
}

async function putIfAbsent(
  bucket: S3Bucket,
  name: string,
  bytes: Uint8Array,
  options: PutOptions,
  signal: AbortSignal,
): Promise<void> {
  const spared = bucket.checksChecksums === true && bytes.length >= unhashedBytesMin;
  try {
    await put(bucket, name, bytes, options, spared ? 'UNSIGNED-PAYLOAD' : null, signal);
  } catch (error) {
    // A bucket's policy may forbid it (s3:x-amz-content-sha256).
    if (!spared || !(error instanceof AccessDenied)) throw error;
    await put(bucket, name, bytes, options, null, signal);
    bucket.checksChecksums = false;
  }
}

/** Below this a hash costs the store less than the rest of a request. */
const unhashedBytesMin = 2 ** 20;

/**
 * The checksum is among the headers that are signed, so the signature vouches for the body of a store that checks it. Without a hash of
 * the payload such a store hashes once less. Null: the payload's hash is signed, too.
 */
async function put(
  bucket: S3Bucket,
  name: string,
  bytes: Uint8Array,
  options: PutOptions,
  payloadHash: 'UNSIGNED-PAYLOAD' | null,
  signal: AbortSignal,
): Promise<void> {
  const sha256 = Buffer.from(options.sha256);
  const input: PutObjectCommandInput = {
    Bucket: bucket.name,
    Key: bucket.key(name),
    Body: bytes,
    ContentLength: bytes.length,
    ContentType: 'application/octet-stream',
    IfNoneMatch: '*',
    // Object lock asks for the algorithm's name besides the checksum itself.
    ChecksumAlgorithm: 'SHA256',
    ChecksumSHA256: sha256.toString('base64'),
    ...(options.retainUntil && { ObjectLockMode: bucket.lockMode, ObjectLockRetainUntilDate: options.retainUntil }),
  };
  const command = new PutObjectCommand(input);
  // Supplying it spares the SDK from hashing the segment once more.
  command.middlewareStack.add(
    (next) => (args) => {
      if (hasHeaders(args.request))
        args.request.headers['x-amz-content-sha256'] = payloadHash ?? sha256.toString('hex');
      return next(args);
    },
    { step: 'build', name: 'suppliedPayloadHash' },
  );
  const paced: { body: Readable | null } = { body: null };
  try {
    const send = (abortSignal: AbortSignal, pace: Pace | undefined) => {
      if (pace !== undefined && bytes.length > 0) command.input.Body = paced.body = pacedBody(bytes, pace);
      return bucket.client.send(command, { abortSignal });
    };
    const answer = await bucket.request('putting', name, signal, send, options.pace);
    bucket.checksChecksums ??= answer.ChecksumSHA256 === input.ChecksumSHA256;
  } catch (error) {
    paced.body?.destroy();
    throw options.retainUntil ? lockUnsupported(error) : error;
  }
}

/** A bucket without object lock answers a locked put with a plain InvalidRequest (HTTP 400). */
function lockUnsupported(error: unknown): unknown {
  if (!(error instanceof RequestRefused)) return error;
  return new Unsupported(`${error.message}. Does the bucket have object lock enabled?`, { cause: error });
}

async function getObject(
  bucket: S3Bucket,
  name: string,
  range: ByteRange | null,
  signal: AbortSignal,
  { pace, into }: GetOptions = {},
): Promise<Uint8Array> {
  const input = {
    Bucket: bucket.name,
    Key: bucket.key(name),
    ...(range && { Range: `bytes=${range.offset}-${range.offset + range.length - 1}` }),
  };
  const read = async (abortSignal: AbortSignal, paced: Pace | undefined) => {
    const answer = await bucket.client.send(new GetObjectCommand(input), { abortSignal });
    const how = { ...(paced && { pace: paced }), ...(into && { into }) };
    const found = { announced: answer.ContentLength, contentRange: answer.ContentRange, body: answer.Body };
    return await readBody(found, range, bucket.prefix + name, abortSignal, how);
  };
  return await bucket.request('reading', name, signal, read, pace);
}

interface Head {
  readonly info: ObjectInfo;
  readonly retainUntil: Date | null;
  readonly lockMode: 'COMPLIANCE' | 'GOVERNANCE' | null;
}

async function headObject(bucket: S3Bucket, name: string, signal: AbortSignal): Promise<Head> {
  const command = new HeadObjectCommand({ Bucket: bucket.name, Key: bucket.key(name), ChecksumMode: 'ENABLED' });
  try {
    const found = await bucket.request('looking at it', name, signal, (abortSignal) =>
      bucket.client.send(command, { abortSignal }),
    );
    if (found.ContentLength === undefined || found.LastModified === undefined) throw incompleteAnswer(bucket, name);
    const sha256 = storedSha256(found.ChecksumSHA256);
    return {
      info: { name, bytes: found.ContentLength, modified: found.LastModified, sha256 },
      retainUntil: found.ObjectLockRetainUntilDate ?? null,
      lockMode: found.ObjectLockMode ?? null,
    };
  } catch (error) {
    if (error instanceof ObjectNotFound && !bucket.seen) await checkBucket(bucket, signal);
    throw error;
  }
}

/** A composite checksum (of a multipart upload, hence not ours) is no SHA-256 of the object. */
function storedSha256(base64: string | undefined): Uint8Array | null {
  const digest = new Uint8Array(Buffer.from(base64 ?? '', 'base64'));
  return digest.length === 32 && base64?.length === 44 ? digest : null;
}

async function checkBucket(bucket: S3Bucket, signal: AbortSignal): Promise<void> {
  try {
    await bucket.request('looking for the bucket', '', signal, (abortSignal) =>
      bucket.client.send(new HeadBucketCommand({ Bucket: bucket.name }), { abortSignal }),
    );
  } catch (error) {
    if (error instanceof ObjectNotFound)
      throw new BucketNotFound(`s3://${bucket.name} does not exist. Create it, or correct its name`, { cause: error });
    signal.throwIfAborted();
    // Whether the bucket is there stays unknown without permission to look; the caller's own error says enough.
  }
}

async function extendRetention(bucket: S3Bucket, name: string, until: Date, signal: AbortSignal): Promise<void> {
  const { retainUntil, lockMode } = await headObject(bucket, name, signal);
  if (retainUntil !== null && retainUntil >= until) return;
  const command = new PutObjectRetentionCommand({
    Bucket: bucket.name,
    Key: bucket.key(name),
    // An object keeps the mode it has: compliance cannot be relaxed, and governance is not tightened behind anyone's back.
    Retention: { Mode: lockMode ?? bucket.lockMode, RetainUntilDate: until },
  });
  try {
    await bucket.request('extending retention', name, signal, (abortSignal) =>
      bucket.client.send(command, { abortSignal }),
    );
  } catch (error) {
    if (!(error instanceof AccessDenied || error instanceof RequestRefused || error instanceof Immutable)) throw error;
    // To shorten is refused, in words that differ: another host may have lengthened it meanwhile, by more.
    const now = await headObject(bucket, name, signal);
    if (now.retainUntil === null || now.retainUntil < until) throw lockUnsupported(error);
  }
}

/** The Date of the answer counts even when the store refuses the request because our clock is off: that is why it is asked. */
async function storeTime(bucket: S3Bucket, signal: AbortSignal): Promise<Date> {
  const command = new HeadBucketCommand({ Bucket: bucket.name });
  let date = Number.NaN;
  command.middlewareStack.add(
    (next) => async (args) => {
      const result = await next(args);
      if (hasHeaders(result.response)) date = Date.parse(result.response.headers.date ?? '');
      return result;
    },
    { step: 'deserialize', priority: 'low', name: 'dateHeader' },
  );
  try {
    await bucket.request("reading the store's clock", '', signal, (abortSignal) =>
      bucket.client.send(command, { abortSignal }),
    );
  } catch (error) {
    if (error instanceof ObjectNotFound)
      throw new BucketNotFound(`s3://${bucket.name} does not exist. Create it, or correct its name`, { cause: error });
    if (!(error instanceof ClockSkewed)) throw error;
  }
  if (Number.isNaN(date)) throw new StoreUnavailable(`s3://${bucket.name}: the store answers without a Date header`);
  return new Date(date);
}

function hasHeaders(message: unknown): message is { readonly headers: Record<string, string> } {
  return typeof message === 'object' && message !== null && 'headers' in message && typeof message.headers === 'object';
}
