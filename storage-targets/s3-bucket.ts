import type { S3Client } from '@aws-sdk/client-s3';

import { boundedRequest } from './bounded-request.ts';
import { StoreUnavailable } from './errors.ts';
import { checkObjectName } from './object-name.ts';
import type { S3ConnectionOptions } from './s3-connection.ts';
import { s3Error } from './s3-errors.ts';
import type { Pace } from './storage-target.ts';

export interface S3Options extends S3ConnectionOptions {
  readonly bucket: string;
  /** Our share of the bucket; a slash is added at its end. Left out: the whole bucket. */
  readonly prefix?: string;
  /** How objects are locked when a put asks for it. In compliance mode nobody, the account's root included, can shorten it. */
  readonly objectLockMode?: 'COMPLIANCE' | 'GOVERNANCE';
}

/** The client with what every request needs: where our objects are, and errors and cancellation as the contract has them. */
export class S3Bucket {
  readonly client: S3Client;
  readonly name: string;
  readonly prefix: string;
  readonly lockMode: 'COMPLIANCE' | 'GOVERNANCE';
  readonly #region: string;
  /** A HEAD cannot tell a missing object from a missing bucket; once the bucket was seen, it need not be asked. */
  seen = false;
  /** Whether the store takes part in checksums, as its answer to the first put says; null before. False as well where it wants payloads signed. */
  checksChecksums: boolean | null = null;

  constructor(client: S3Client, options: S3Options) {
    this.client = client;
    this.name = options.bucket;
    const prefix = options.prefix ?? '';
    this.prefix = prefix === '' || prefix.endsWith('/') ? prefix : `${prefix}/`;
    this.lockMode = options.objectLockMode ?? 'COMPLIANCE';
    this.#region = options.region;
  }

  key(name: string): string {
    checkObjectName(name);
    return this.prefix + name;
  }

  /** As `boundedRequest`, with errors as the contract has them. */
  async request<T>(
    doing: string,
    name: string,
    signal: AbortSignal,
    work: (signal: AbortSignal, pace: Pace | undefined) => Promise<T>,
    pace?: Pace,
  ): Promise<T> {
    const subject = `s3://${this.name}/${name === '' ? '' : this.prefix + name}`;
    const named = (error: unknown) => s3Error(error, { subject, doing, region: this.#region });
    const result = await boundedRequest({ subject, doing, pace, named }, signal, work);
    this.seen = true;
    return result;
  }
}

export function incompleteAnswer(bucket: S3Bucket, name: string): StoreUnavailable {
  return new StoreUnavailable(`s3://${bucket.name}/${bucket.prefix}${name}: the store's answer lacks size or time`);
}
