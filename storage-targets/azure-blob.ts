import { StorageCRC64Calculator } from '@azure/storage-common';

import { readBody } from './answer-body.ts';
import { connectAzure } from './azure-blob-connection.ts';
import { AzureContainer, type AzureOptions } from './azure-blob-container.ts';
import { deleteEveryVersion } from './azure-blob-delete.ts';
import { answerDate } from './azure-blob-errors.ts';
import { firstPage, listBlobs } from './azure-blob-list.ts';
import {
  extendRetention,
  lockRefused,
  lookAt,
  policyUntil,
  requireImmutability,
  requireLocked,
} from './azure-blob-retention.ts';
import { checkBytes } from './checked-bytes.ts';
import { ClockSkewed, RangeInvalid, StoreUnavailable } from './errors.ts';
import { checkListPrefix } from './object-name.ts';
import { pacedBody } from './paced-body.ts';
import type { ByteRange, GetOptions, Pace, PutOptions, StorageTarget } from './storage-target.ts';
import { takenOrDenied } from './taken-or-denied.ts';

/** One container of Azure Blob storage. Opening sends nothing; each method translates one call. */
export async function openAzureTarget(options: AzureOptions): Promise<StorageTarget> {
  const connection = await connectAzure(options);
  await StorageCRC64Calculator.init();
  const container = new AzureContainer(connection.client, options);
  return {
    description: `${container.place}/${container.prefix}`,
    putIfAbsent: (name, bytes, putOptions, signal) => putIfAbsent(container, name, bytes, putOptions, signal),
    get: (name, range, signal, getOptions) => getBlob(container, name, range, signal, getOptions),
    head: async (name, signal) => (await lookAt(container, name, signal)).info,
    list(prefix, listOptions, signal) {
      checkListPrefix(prefix);
      return listBlobs(container, prefix, listOptions, signal);
    },
    delete: (names, signal) => deleteEveryVersion(container, names, signal),
    extendRetention: (name, until, signal) => extendRetention(container, name, until, signal),
    now: (signal) => storeTime(container, signal),
    async [Symbol.asyncDispose]() {
      connection[Symbol.dispose]();
    },
  };
}

async function putIfAbsent(
  container: AzureContainer,
  name: string,
  bytes: Uint8Array,
  options: PutOptions,
  signal: AbortSignal,
): Promise<void> {
  const blob = container.blob(name);
  const { retainUntil } = options;
  signal.throwIfAborted();
  if (retainUntil) await requireImmutability(container, signal);
  const crc64 = await crc64Of(container.subject(name), bytes, options.sha256);
  // The SDK's sending takes the whole buffer behind an array that is no Buffer; this is a view, not a copy.
  const whole = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const upload = (abortSignal: AbortSignal, pace: Pace | undefined) =>
    blob.upload(pace === undefined || bytes.length === 0 ? whole : () => pacedBody(bytes, pace), bytes.length, {
      abortSignal,
      conditions: { ifNoneMatch: '*' },
      blobHTTPHeaders: { blobContentType: 'application/octet-stream' },
      metadata: { sha256: Buffer.from(options.sha256).toString('hex') },
      transactionalContentCrc64: crc64,
      ...(retainUntil && { immutabilityPolicy: policyUntil(retainUntil, container.policyMode) }),
    });
  try {
    await container.request('putting', name, signal, upload, options.pace);
  } catch (error) {
    const named = await takenOrDenied(error, container.subject(name), () => lookAt(container, name, signal));
    throw retainUntil ? lockRefused(named) : named;
  }
  if (retainUntil) await requireLocked(container, name, retainUntil, container.policyMode, signal);
}

/** The checksum that Azure verifies on arrival. MD5, which it takes, too, is not there on hosts in FIPS mode. */
async function crc64Of(subject: string, bytes: Uint8Array, sha256: Uint8Array): Promise<Uint8Array> {
  const crc64 = new StorageCRC64Calculator();
  await checkBytes(subject, bytes, sha256, (piece) => crc64.append(piece, piece.length));
  return crc64.final(new Uint8Array(0), 0);
}

async function getBlob(
  container: AzureContainer,
  name: string,
  range: ByteRange | null,
  signal: AbortSignal,
  { pace, into }: GetOptions = {},
): Promise<Uint8Array> {
  const blob = container.blob(name);
  const read = async (abortSignal: AbortSignal, paced: Pace | undefined) => {
    const found = await blob.download(range?.offset ?? 0, range?.length, { abortSignal, maxRetryRequests: 0 });
    const how = { ...(paced && { pace: paced }), ...(into && { into }) };
    const answer = {
      announced: found.contentLength,
      contentRange: found.contentRange,
      body: found.readableStreamBody,
    };
    const key = container.subject(name);
    return await readBody(answer, range, key, abortSignal, how).catch((error: unknown) => brokenOff(key, error));
  };
  return await container.request('reading', name, signal, read, pace);
}

/** The SDK's stream throws errors of its own, without a code, when an answer ends too early. */
function brokenOff(key: string, error: unknown): never {
  if (error instanceof RangeInvalid || error instanceof StoreUnavailable) throw error;
  throw new StoreUnavailable(`${key}: the store's answer broke off`, { cause: error });
}

/** The Date of any answer. It counts even when the store refuses the request because our clock is off: that is why it is asked. */
async function storeTime(container: AzureContainer, signal: AbortSignal): Promise<Date> {
  let date: string | undefined;
  const ask = async (abortSignal: AbortSignal) => {
    try {
      const { _response } = await firstPage(container, abortSignal, { prefix: container.prefix, maxPageSize: 1 });
      date = _response.headers.get('date');
    } catch (error) {
      date = answerDate(error);
      throw error;
    }
  };
  await container.request("reading the store's clock", '', signal, ask).catch((error: unknown) => {
    if (!(error instanceof ClockSkewed)) throw error;
  });
  const time = Date.parse(date ?? '');
  if (Number.isNaN(time)) throw new StoreUnavailable(`${container.place}: the store answers without a Date header`);
  return new Date(time);
}
