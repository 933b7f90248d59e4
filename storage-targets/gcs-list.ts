import { StoreUnavailable } from './errors.ts';
import type { GcsBucket } from './gcs-bucket.ts';
import { answerText, type HttpAnswer } from './http-exchange.ts';
import { type ListPage, listPages, type PageRequest } from './list-pages.ts';
import { field } from './network-errors.ts';
import type { ListedObject, ListOptions } from './storage-target.ts';

const listedPerRequestMax = 1_000;

export function listObjects(
  bucket: GcsBucket,
  prefix: string,
  options: ListOptions,
  signal: AbortSignal,
): AsyncGenerator<ListedObject> {
  return listPages(bucket.place, options, (request) => listPage(bucket, prefix, request, signal));
}

async function listPage(
  bucket: GcsBucket,
  prefix: string,
  { startAfter, limit, token }: PageRequest,
  signal: AbortSignal,
): Promise<ListPage> {
  const answer = await bucket.request('listing', prefix, signal, async (either) => {
    const query = {
      prefix: bucket.prefix + prefix,
      // The store begins with the name itself, which is one too many.
      maxResults: String(Math.min(startAfter === '' ? limit : limit + 1, listedPerRequestMax)),
      fields: 'items(name,size,updated),nextPageToken',
      ...(token !== undefined && { pageToken: token }),
      ...(startAfter !== '' && { startOffset: bucket.prefix + startAfter }),
    };
    return await jsonOf(await bucket.call({ method: 'GET', path: '/o', query }, either));
  });
  const next = field(answer, 'nextPageToken');
  return {
    objects: itemsOf(answer).map((item) => listedObject(bucket, item)),
    nextToken: typeof next === 'string' && next !== '' ? next : undefined,
  };
}

export async function jsonOf(answer: HttpAnswer): Promise<unknown> {
  const text = await answerText(answer);
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new StoreUnavailable("the store's answer is no JSON", { cause: error });
  }
}

/** A listing without objects has no `items`. */
export function itemsOf(answer: unknown): readonly unknown[] {
  const items = field(answer, 'items');
  return Array.isArray(items) ? items : [];
}

/** Sizes are decimal text, for JSON's numbers end at 2^53. */
export function listedObject(bucket: GcsBucket, item: unknown): ListedObject {
  const name = field(item, 'name');
  const bytes = Number(field(item, 'size') ?? Number.NaN);
  const modified = new Date(String(field(item, 'updated')));
  if (typeof name !== 'string' || !Number.isSafeInteger(bytes) || Number.isNaN(modified.getTime()))
    throw new StoreUnavailable(`${bucket.place}: the store's answer lacks name, size or time`);
  return { name: name.slice(bucket.prefix.length), bytes, modified };
}
