import {
  GetBucketLifecycleConfigurationCommand,
  GetObjectLockConfigurationCommand,
  type LifecycleRule,
  S3Client,
} from '@aws-sdk/client-s3';
import type { BucketLock } from './bucket-lock.ts';
import { AccessDenied, ObjectNotFound, RequestRefused, Unsupported } from './errors.ts';
import { S3Bucket, type S3Options } from './s3-bucket.ts';
import { s3ClientConfig } from './s3-connection.ts';

/** Tiers from which nothing is read within minutes. */
const archiveClasses: ReadonlySet<string> = new Set(['GLACIER', 'DEEP_ARCHIVE']);

export async function examineBucketLock(options: S3Options, signal: AbortSignal): Promise<BucketLock> {
  const client = new S3Client(await s3ClientConfig(options));
  try {
    const bucket = new S3Bucket(client, options);
    const lock = await lockOf(bucket, signal);
    const rules = await rulesOf(bucket, signal);
    return {
      feature: 'object lock',
      ...lock,
      enabling: 'make a bucket with object lock enabled',
      archives: rules?.flatMap(classesOf).filter((name) => archiveClasses.has(name)) ?? null,
      deletesOld: rules?.some(expires) ?? false,
    };
  } finally {
    client.destroy();
  }
}

async function lockOf(
  bucket: S3Bucket,
  signal: AbortSignal,
): Promise<Pick<BucketLock, 'enabled' | 'hasDefaultRetention'>> {
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

/** Null where these credentials may not ask. */
async function rulesOf(bucket: S3Bucket, signal: AbortSignal): Promise<readonly LifecycleRule[] | null> {
  const command = new GetBucketLifecycleConfigurationCommand({ Bucket: bucket.name });
  try {
    const { Rules = [] } = await bucket.request('reading its lifecycle rules', '', signal, (abortSignal) =>
      bucket.client.send(command, { abortSignal }),
    );
    return Rules.filter(({ Status }) => Status === 'Enabled');
  } catch (error) {
    if (error instanceof AccessDenied) return null;
    // No rules at all are an error of their own, and a server may know nothing of rules.
    if (error instanceof ObjectNotFound || error instanceof RequestRefused || error instanceof Unsupported) return [];
    throw error;
  }
}

/** Under object lock nothing is deleted, but all is hidden under delete markers. */
function expires({ Expiration }: LifecycleRule): boolean {
  return Expiration?.Days !== undefined || Expiration?.Date !== undefined;
}

function classesOf({ Transitions = [], NoncurrentVersionTransitions = [] }: LifecycleRule): string[] {
  return [...Transitions, ...NoncurrentVersionTransitions].flatMap(({ StorageClass }) => StorageClass ?? []);
}
