import type { ContainerClient } from '@azure/storage-blob';
import type { AzureConnectionOptions } from './azure-blob-connection.ts';
import { azureError } from './azure-blob-errors.ts';
import { boundedRequest } from './bounded-request.ts';
import { StoreUnavailable } from './errors.ts';
import { checkObjectName } from './object-name.ts';
import type { Pace } from './storage-target.ts';

export interface AzureOptions extends AzureConnectionOptions {
  /** Our share of the container; a slash is added at its end. Left out: the whole container. */
  readonly prefix?: string;
  /** How blobs are locked when a put asks for it. A locked policy can be shortened by nobody, Microsoft included. Left out: locked. */
  readonly policyMode?: 'Locked' | 'Unlocked';
}

/** The client with what every request needs: where our objects are, and errors and cancellation as the contract has them. */
export class AzureContainer {
  readonly client: ContainerClient;
  readonly prefix: string;
  /** `azure://account/container`. */
  readonly place: string;
  readonly policyMode: 'Locked' | 'Unlocked';
  /** Whether this process has seen that the store locks what it is asked to. */
  lockSeen = false;

  constructor(client: ContainerClient, options: AzureOptions) {
    this.client = client;
    const prefix = options.prefix ?? '';
    this.prefix = prefix === '' || prefix.endsWith('/') ? prefix : `${prefix}/`;
    this.place = `azure://${options.account}/${options.container}`;
    this.policyMode = options.policyMode ?? 'Locked';
  }

  blob(name: string) {
    checkObjectName(name);
    return this.client.getBlockBlobClient(this.prefix + name);
  }

  subject(name: string): string {
    return `${this.place}/${name === '' ? '' : this.prefix + name}`;
  }

  /** As `boundedRequest`, with errors as the contract has them. */
  async request<T>(
    doing: string,
    name: string,
    signal: AbortSignal,
    work: (signal: AbortSignal, pace: Pace | undefined) => Promise<T>,
    pace?: Pace,
  ): Promise<T> {
    const subject = this.subject(name);
    const named = (error: unknown) => azureError(error, { subject, doing });
    return await boundedRequest({ subject, doing, pace, named }, signal, work);
  }
}

export function incompleteAnswer(container: AzureContainer, name: string): StoreUnavailable {
  return new StoreUnavailable(`${container.subject(name)}: the store's answer lacks size or time`);
}
