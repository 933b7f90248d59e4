import {
  GetBucketLifecycleConfigurationCommand,
  GetObjectLockConfigurationCommand,
  type LifecycleRule,
  S3Client,
} from '@aws-sdk/client-s3';
import { AccessDenied, ObjectNotFound, RequestRefused, Unsupported } from './errors.ts';
import { S3Bucket, type S3Options } from './s3-bucket.ts';
import { s3ClientConfig } from './s3-connection.ts';

/** What a bucket does to objects by itself, as far as it matters to object lock. */
export interface BucketLock {
  readonly enabled: boolean;
  /** Locks objects that ask for none, our pins among them. */
  readonly hasDefaultRetention: boolean;
  /** Storage classes that rules of the bucket move objects to; null where these credentials may not ask. */
  readonly movesTo: readonly string[] | null;
}

export async function examineBucketLock(options: S3Options, signal: AbortSignal): Promise<BucketLock> {
  const client = new S3Client(await s3ClientConfig(options));
  try {
    const bucket = new S3Bucket(client, options);
    const lock = await lockOf(bucket, signal);
    return { ...lock, movesTo: await movesTo(bucket, signal) };
  } finally {
    client.destroy();
  }
}

async function lockOf(bucket: S3Bucket, signal: AbortSignal): Promise<Omit<BucketLock, 'movesTo'>> {
  const command = new GetObjectLockConfigurationCommand({ Bucket: bucket.name });
  try {
    const found = await bucket.request('reading its object lock', '', signal, (abortSignal) =>
      bucket.client.send(command, { abortSignal }),
    );
    const { ObjectLockEnabled: enabled, Rule: rule } = found.ObjectLockConfiguration ?? {};
    return { enabled: enabled === 'Enabled', hasDefaultRetention: rule?.DefaultRetention !== undefined };
  } catch (error) {
    if (error instanceof Unsupported || error instanceof ObjectNotFound)
      return { enabled: false, hasDefaultRetention: false };
    throw error;
  }
}

async function movesTo(bucket: S3Bucket, signal: AbortSignal): Promise<readonly string[] | null> {
  const command = new GetBucketLifecycleConfigurationCommand({ Bucket: bucket.name });
  try {
    const { Rules = [] } = await bucket.request('reading its lifecycle rules', '', signal, (abortSignal) =>
      bucket.client.send(command, { abortSignal }),
    );
    return Rules.filter(({ Status }) => Status === 'Enabled').flatMap(classesOf);
  } catch (error) {
    if (error instanceof AccessDenied) return null;
    // No rules at all are an error of their own, and a server may know nothing of rules.
    if (error instanceof ObjectNotFound || error instanceof RequestRefused || error instanceof Unsupported) return [];
    throw error;
  }
}

function classesOf({ Transitions = [], NoncurrentVersionTransitions = [] }: LifecycleRule): string[] {
  return [...Transitions, ...NoncurrentVersionTransitions].flatMap(({ StorageClass }) => StorageClass ?? []);
}
